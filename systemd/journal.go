package systemd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// JournalReads reports whether what is written to fd goes straight to the journal, which
// then adds date and process itself, and understands a priority in front of a line
// (systemd.exec(5), JOURNAL_STREAM; sd-daemon(3)). The variable alone does not
// tell: it is inherited by those whose output somebody has sent elsewhere.
func JournalReads(fd int) bool {
	var file unix.Stat_t
	return unix.Fstat(fd, &file) == nil &&
		os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", file.Dev, file.Ino)
}
