//go:build !race

package keystore_test

// raceDetector says that the race detector does not run.
const raceDetector = false
