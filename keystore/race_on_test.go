//go:build race

package keystore_test

// raceDetector says that the race detector runs, under which sync.Pool drops
// things on purpose.
const raceDetector = true
