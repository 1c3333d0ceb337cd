package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// raiseLimit raises the limit of descriptors as far as it goes, for us and what we
// start: to fs.nr_open if we may, else to the hard limit.
func raiseLimit() {
	const enough = 1 << 20 // Linux's default of fs.nr_open
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: enough, Max: enough}) == nil {
		return
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		// It is allowed to do so; what then is missing is told where it is needed.
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
}

func descriptorLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30))
}

func checkDescriptors(needed int) error {
	if limit := descriptorLimit(); needed > limit {
		return fmt.Errorf("this needs %s open descriptors in one process, and the hard limit (ulimit -Hn) is %s: raise it, or take fewer clients or cached connections",
			grouped(needed), grouped(limit))
	}
	return nil
}

// shareProcessors gives servers a processor of their own, and the agents and sinks the others.
// Else it is chance whether a server that talks to one client at a time finds it on
// its own processor or has to wake another one, which takes twice as long. There
// must be two at least, else it gives none.
func shareProcessors() (servers, agents *unix.CPUSet) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		return nil, nil
	}
	servers, agents = &unix.CPUSet{}, &all
	for cpu := 0; servers.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			servers.Set(cpu)
			agents.Clear(cpu)
		}
	}
	return servers, agents
}

// pin keeps all threads of a process, and those that they start, on some processors, if there are some.
func pin(pid int, cpus *unix.CPUSet) error {
	if cpus == nil {
		return nil
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		id, _ := strconv.Atoi(task.Name())
		if e := unix.SchedSetaffinity(id, cpus); e != nil && e != unix.ESRCH {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("pin: %w (-pin=false does without)", err)
	}
	return nil
}
