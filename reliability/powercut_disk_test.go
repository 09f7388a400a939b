//go:build reliability && linux

package reliability

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// This file makes disks: file systems in a file, whose content the test can look
// at as the disk holds it, without what the system has only in memory.

// ownMounts is the environment variable that tells a process that it runs one
// test, with mounts of its own.
const ownMounts = "RELIABILITY_MOUNTS"

// inOwnMounts runs the test again in a process whose mounts are its own, so that
// they end with it however it ends. It reports whether this is that process.
func inOwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownMounts) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), ownMounts+"="+t.Name())
	cmd.SysProcAttr = endsWithUs()
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("mounts of its own are not allowed here: %v", err)
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// endsWithUs makes a process end when the thread that started it does, so that
// none is left if the test is interrupted. The thread is the caller's until its
// goroutine ends.
func endsWithUs() *syscall.SysProcAttr {
	runtime.LockOSThread()
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// mountHere mounts a file system for the time of the test.
func mountHere(t *testing.T, source, dir, kind, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mount", "-t", kind, "-o", options, source, dir).CombinedOutput()
	if err != nil {
		t.Skipf("%s can't be mounted here: %s", kind, out)
	}
	t.Cleanup(func() {
		// A process that was just killed may hold it for a moment: it is gone from
		// sight at once, and from the system when the last file is closed.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// inMemory is a directory that takes no disk.
func inMemory(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	mountHere(t, "none", dir, "tmpfs", "mode=0700,size="+size)
	return dir
}

// disk is a mounted file system in a file.
type disk struct {
	t     *testing.T
	image string
	// dir is where it is mounted.
	dir string
}

// newDisk makes an empty disk in a directory.
func newDisk(t *testing.T, dir string, size int64) *disk {
	t.Helper()
	image := filepath.Join(dir, "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", image).CombinedOutput()
	if err != nil {
		t.Skipf("no ext4 can be made here: %v %s", err, out)
	}
	return mountImage(t, image)
}

// mountImage mounts an image. The file system writes what nobody syncs after
// 300 seconds only.
func mountImage(t *testing.T, image string) *disk {
	t.Helper()
	dir := image + ".mounted"
	mountHere(t, image, dir, "ext4", "loop,commit=300")
	return &disk{t, image, dir}
}

// store is where the disk has its store.
func (d *disk) store() string { return filepath.Join(d.dir, "store", "keys.db") }

// afterPowerCut is the disk as it would come up now: what was not written to it
// is lost. Nobody may write to the file system meanwhile.
func (d *disk) afterPowerCut(t *testing.T, dir string) *disk {
	t.Helper()
	to := filepath.Join(dir, "image")
	for before := ""; before != d.traffic(); {
		// Should the system write by itself just now, the copy is of no one moment.
		before = d.traffic()
		if err := copyFile(d.image, to); err != nil {
			t.Fatal(err)
		}
	}
	return mountImage(t, to)
}

// traffic tells whether anything was written to the disk since.
func (d *disk) traffic() string {
	d.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[4] == d.dir {
			device := filepath.Base(f[len(f)-2])
			counts, err := os.ReadFile("/sys/block/" + device + "/stat")
			if err != nil {
				d.t.Fatal(err)
			}
			return string(counts)
		}
	}
	d.t.Fatalf("%s is not mounted", d.dir)
	return ""
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
