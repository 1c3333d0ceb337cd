package lab

import (
	"io"
	"os/exec"
	"syscall"
)

// guard is a shell that outlives us when we die without closing the lab (a
// test's time limit, kill -9): it sees the end of its input, ends the
// instance and removes its directory.
type guard struct {
	cmd   *exec.Cmd
	input io.WriteCloser
}

// The number in master.pid may be another's by now, which its program tells.
const guardScript = `
read word && exit
read pid <"$1/queue/pid/master.pid"
case $(readlink "/proc/$pid/exe") in
"$1"/*) kill -TERM "$pid"; sleep 2; kill -KILL "-$pid" ;;
esac
rm -rf "$1"
`

func startGuard(dir string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of Ctrl-C's reach
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &guard{cmd, input}, cmd.Start()
}

// dismiss sends the guard home: there is nothing left to guard.
func (g *guard) dismiss() {
	io.WriteString(g.input, "done\n")
	g.input.Close()
	g.cmd.Wait()
}
