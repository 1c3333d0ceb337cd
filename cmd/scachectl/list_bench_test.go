package main

import (
	"bytes"
	"io"
	"testing"

	"github.com/scache/scache/proto"
)

// BenchmarkList is a whole list, of a server that has an answer of so many entries ready.
func BenchmarkList(b *testing.B) {
	for _, format := range []string{"text", "json"} {
		b.Run(format, func(b *testing.B) {
			entry := proto.AppendText(nil, "connection", "smtp\n192.0.2.1\n25\n0\n")
			entry = proto.AppendText(entry, "property", "mail.example.com\n192.0.2.1\n25\n0\n1234\n5678\n")
			entry = proto.AppendNumber(proto.AppendNumber(entry, "age", 1234), "remaining", 567)
			entry = proto.AppendText(proto.AppendText(entry, "kind", "tcp"), "remote", "192.0.2.1:25")
			entry = proto.AppendEnd(proto.AppendNumber(entry, "uses", 1))
			path, listener := listen(b)
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				io.WriteString(conn, proto.Announcement)
				conn.Read(make([]byte, 1<<10)) // what is asked for
				conn.Write(append(append([]byte("status\x000\x00\x00"), bytes.Repeat(entry, b.N)...), 0))
				conn.Read(make([]byte, 1))
			}()
			b.ReportAllocs()
			arguments := []string{"list", "-socket", path}
			if format == "json" {
				arguments = append(arguments, "-json")
			}
			if status := run(b.Context(), arguments, io.Discard, io.Discard); status != 0 {
				b.Error("status ", status)
			}
		})
	}
}
