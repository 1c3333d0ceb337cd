// Package postfix is what it takes to be a Postfix daemon: to be started by
// master(8) with a command line and a set of descriptors, to take parameters
// from main.cf, to write to the mail log, to go into the jail, and to report to
// master. Nothing in it knows what the daemon serves.
//
// # Descriptors that master(8) hands over
//
//	0-2   /dev/null
//	3, 4  flow control pipe, unused here
//	5     status channel: a stream socket pair; end of file is the word to leave
//	6...  listening sockets, one unless -s says otherwise
//
// [Start] looks at 5 and up before it opens anything itself, so that a number
// that master did not hand over cannot be mistaken for one that it did.
//
// # Order of start-up
//
// It is that of multi_server.c, multi_server_main: log as the environment says,
// options, parameters, log as the parameters say, terminal, own parameters,
// process limit, transport, generation, debugger, what the caller prepares, queue directory, jail. The
// order decides under which name, and through which channel, an error is logged.
package postfix
