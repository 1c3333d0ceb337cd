package systemd

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// WatchdogInterval is how long systemd waits for a [Notifier.Alive] before it kills
// the service; half of that is a good time between two of them. 0 is for ever: there
// is no watchdog, or it watches another process (sd_watchdog_enabled(3)).
//
// WATCHDOG_PID is removed from the environment where it names this process. So one that we
// start to take our place finds the interval, and no process that it is not.
func WatchdogInterval() (time.Duration, error) {
	text := os.Getenv("WATCHDOG_USEC")
	if text == "" {
		return 0, nil
	}
	switch os.Getenv("WATCHDOG_PID") {
	case "":
	case strconv.Itoa(os.Getpid()):
		os.Unsetenv("WATCHDOG_PID")
	default:
		return 0, nil
	}
	microseconds, err := strconv.ParseInt(text, 10, 64)
	interval := time.Duration(microseconds) * time.Microsecond
	if err != nil || interval <= 0 || interval/time.Microsecond != time.Duration(microseconds) {
		return 0, fmt.Errorf("WATCHDOG_USEC=%s: not a number of microseconds", text)
	}
	return interval, nil
}
