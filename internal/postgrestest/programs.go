package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
)

// errNoProgram is why a test skips.
var errNoProgram = errors.New("not found")

// findServer returns the directory of the server's programs.
func findServer() (string, error) {
	if dir := os.Getenv("POSTGRES_BIN"); dir != "" {
		if !holdsServer(dir) {
			return "", fmt.Errorf("POSTGRES_BIN is %q, where there is no initdb and postgres", dir)
		}
		return dir, nil
	}
	dirs := []string{}
	if program, err := exec.LookPath("postgres"); err == nil {
		// A link points to where the other programs are.
		if program, err = filepath.EvalSymlinks(program); err == nil {
			dirs = append(dirs, filepath.Dir(program))
		}
	}
	dirs = append(dirs, newest("/usr/lib/postgresql/*/bin"), "/usr/local/pgsql/bin")
	for _, dir := range dirs {
		if runtime.GOOS != "windows" && holdsServer(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the programs of a PostgreSQL server were %w: "+
		"install them (Debian: postgresql), or set POSTGRES_BIN to their directory", errNoProgram)
}

func holdsServer(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

// newest returns the directory of the highest version that the pattern's star
// matches, and "" where it matches none.
func newest(pattern string) (dir string) {
	matches, _ := filepath.Glob(pattern)
	highest := -1
	for _, match := range matches {
		version, _ := strconv.Atoi(filepath.Base(filepath.Dir(match)))
		if version > highest {
			highest, dir = version, match
		}
	}
	return dir
}
