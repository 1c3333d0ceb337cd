package containers_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scache/scache/internal/lab"
)

// testBeside has the cache in a container and Postfix on the machine itself, as
// deploy/README.md tells.
func testBeside(t *testing.T) {
	ctx := limit(t)
	sink, err := lab.NewSMTPSink(ctx)
	must(t, err)
	t.Cleanup(sink.Close)
	l, err := lab.New(lab.Config{
		Routes: map[string]string{"a.example": fmt.Sprintf("[127.0.0.1]:%d", sink.Port())},
		Main: map[string]string{
			"connection_cache_service_name":      "shared/socket",
			"smtp_connection_cache_destinations": "127.0.0.1",
		},
	})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })

	private := filepath.Join(l.QueueDir(), "private")
	shared := filepath.Join(private, "shared")
	must(t, os.MkdirAll(shared, 0o700))
	must(t, os.Chown(private, l.OwnerUID(), 0))
	must(t, os.Chown(shared, l.OwnerUID(), l.OwnerUID()))
	id, err := command(ctx, "docker", "run", "--detach", "--label", "com.docker.compose.project="+project,
		"--user", fmt.Sprintf("%d:%d", l.OwnerUID(), l.OwnerUID()), "--read-only", "--network", "none",
		"--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", shared+":/run/scache", scache)
	must(t, err)
	id = strings.TrimSpace(id)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := command(ctx, "docker", "rm", "--force", id)
		must(t, err)
	})
	must(t, lab.Poll(ctx, func() bool { _, err := command(ctx, "docker", "exec", id, "/scache", "check"); return err == nil }))

	must(t, l.Start(ctx))
	const messages = 200
	must(t, l.Send(ctx, lab.Load{Domain: "a.example", Messages: messages}))
	must(t, l.WaitDelivered(ctx, messages))
	must(t, l.Stop(ctx))
	if found := troubles(l.Log()); len(found) > 0 {
		t.Errorf("in the mail log:\n%s", tail(found))
	}
	_, err = command(ctx, "docker", "stop", id)
	must(t, err)
	seen, err := sink.Counts(ctx)
	must(t, err)
	t.Logf("%d messages, %d connections", seen.Messages, seen.Sessions)
	if seen.Messages != messages || seen.Messages < 4*seen.Sessions {
		t.Errorf("%d messages took %d connections, want %d and at least 4 messages each", seen.Messages, seen.Sessions, messages)
	}
}
