/*
 * The floor: what any server of this protocol has to do at least. It gives fixed
 * replies, knows no names, no time to live and no errors, and does nothing that
 * the kernel does not demand: one recv and one send a message, an edge-triggered
 * epoll for all. Only the hand-over is real: descriptors that a client saves are
 * kept on a stack of that client's, and a find of the same client takes the
 * newest; what a client leaves behind stays open. Of a binding it remembers as
 * little as one can who is to know it again: so each save_dest looks at one place
 * in memory. It can serve the load client and nobody else.
 *
 * It is started like scache: by master(8), with the listening socket at 6 and
 * the status channel at 5, whose end of file ends it.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STATUS = 5, LISTENER = 6, DUMMY = 8, EVENTS = 128 };

enum state { READY, AWAITING_DESCRIPTOR, AWAITING_GO_AHEAD, AWAITING_ACKNOWLEDGEMENT };

/* By descriptor: of a client its state and the newest it has saved, of a saved
 * one the next older; 0 is none. */
static struct entry { enum state state; int newest, older; } *table;

/* A hash table with linear probing: what is bound, by hash; 0 is none. */
static struct binding { uint64_t hash, saved; } *bindings;
static size_t places, bound;

static char buffer[1 << 18], endpoint_hit[1 << 17], destination_hit[1 << 18];
static size_t endpoint_hit_size, destination_hit_size;

static union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
static char nul;

/* A client that does not read its replies is none of ours. */
static void say(int fd, const char *text, size_t size)
{
	if (send(fd, text, size, MSG_NOSIGNAL) != (ssize_t)size)
		shutdown(fd, SHUT_RDWR);
}
#define SAY(fd, text) say(fd, text, sizeof text) /* with the NUL that C adds */

static void drop(int fd)
{
	close(fd);
	table[fd] = (struct entry){ 0 };
}

static int receive_descriptor(int client)
{
	struct iovec io = { &nul, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof control };
	if (recvmsg(client, &m, MSG_CMSG_CLOEXEC) != 1 || m.msg_controllen < CMSG_LEN(sizeof(int)))
		return -1;
	return *(int *)CMSG_DATA(&control.header);
}

static void hand_over(int client)
{
	struct iovec io = { &nul, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int)) };
	int fd = table[client].newest;
	table[client].newest = table[fd].older;
	control.header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	*(int *)CMSG_DATA(&control.header) = fd;
	sendmsg(client, &m, MSG_NOSIGNAL);
	close(fd);
}

static uint64_t hash(const char *text, size_t size)
{
	uint64_t h = size, word;
	for (; size > 0; size -= size < 8 ? size : 8, text += 8) {
		word = 0;
		memcpy(&word, text, size < 8 ? size : 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15;
		h ^= h >> 32;
	}
	return h | 1;
}

static struct binding *find(uint64_t hash)
{
	size_t at = hash >> 1 & (places - 1);
	while (bindings[at].hash != 0 && bindings[at].hash != hash)
		at = (at + 1) & (places - 1);
	return &bindings[at];
}

static void grow(void)
{
	struct binding *old = bindings;
	size_t n = places;
	places = n ? 2 * n : 64;
	bindings = calloc(places, sizeof *bindings);
	for (size_t i = 0; i < n; i++)
		if (old[i].hash != 0)
			*find(old[i].hash) = old[i];
	free(old);
}

/* request␀save_dest␀ttl␀SECONDS␀ and then what the binding is known by. */
static void remember(const char *request, size_t size)
{
	size_t front = sizeof "request" + sizeof "save_dest" + sizeof "ttl";
	front += strlen(request + front) + 1;
	if (bound >= places / 2)
		grow();
	uint64_t h = hash(request + front, size - front);
	struct binding *b = find(h);
	bound += b->hash == 0;
	b->hash = h;
	b->saved++;
}

/* request␀SAVE_Endp, SAVE_Dest, FIND_Endp, FIND_Dest: two letters tell which. */
static void answer(int fd, const char *request, size_t size)
{
	int save = request[8] == 's', endpoint = request[13] == 'e';
	if (save && endpoint) {
		table[fd].state = AWAITING_DESCRIPTOR;
		SAY(fd, "dummy\0\0");
	} else if (save) {
		remember(request, size);
		SAY(fd, "status\0000\0");
	} else if (table[fd].newest == 0) {
		if (endpoint)
			SAY(fd, "status\0002\0property\0\0");
		else
			SAY(fd, "status\0002\0property\0\0property\0\0");
	} else {
		table[fd].state = AWAITING_GO_AHEAD;
		if (endpoint)
			say(fd, endpoint_hit, endpoint_hit_size);
		else
			say(fd, destination_hit, destination_hit_size);
	}
}

static void serve(int fd)
{
	struct entry *c = &table[fd];
	if (c->state == AWAITING_DESCRIPTOR) {
		int got = receive_descriptor(fd);
		if (got < 0) {
			drop(fd);
			return;
		}
		table[got].older = c->newest;
		c->newest = got;
		c->state = READY;
		SAY(fd, "status\0000\0");
		return;
	}
	ssize_t n = recv(fd, buffer, sizeof buffer, 0), at = 0;
	if (n <= 0) {
		drop(fd);
		return;
	}
	if (c->state == AWAITING_GO_AHEAD && n >= DUMMY) {
		hand_over(fd);
		c->state = AWAITING_ACKNOWLEDGEMENT;
		at = DUMMY;
	}
	if (c->state == AWAITING_ACKNOWLEDGEMENT && n - at >= DUMMY) {
		c->state = READY;
		at += DUMMY;
	}
	/* What does not end in two NUL bytes is half a request: it never goes on. */
	if (n - at > 16 && buffer[n - 1] == 0 && buffer[n - 2] == 0)
		answer(fd, buffer + at, n - at);
}

static size_t reply(char *to, int properties)
{
	const char *text[2] = { getenv("FLOOR_DESTINATION"), getenv("FLOOR_ENDPOINT") };
	size_t n = 9;
	memcpy(to, "status\0000", n);
	for (int i = 2 - properties; i < 2; i++)
		n += sprintf(to + n, "property%c%s%c", 0, text[i] ? text[i] : "", 0);
	to[n++] = 0;
	return n;
}

int main(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	table = calloc(limit.rlim_max, sizeof *table);
	endpoint_hit_size = reply(endpoint_hit, 1);
	destination_hit_size = reply(destination_hit, 2);

	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN, .data.fd = LISTENER }, events[EVENTS];
	epoll_ctl(epoll, EPOLL_CTL_ADD, LISTENER, &event);
	event.data.fd = STATUS;
	epoll_ctl(epoll, EPOLL_CTL_ADD, STATUS, &event);
	for (;;) {
		int n = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == STATUS)
				return 0;
			if (fd != LISTENER) {
				serve(fd);
				continue;
			}
			fd = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
			if (fd < 0)
				continue;
			SAY(fd, "protocol\0connection_cache_protocol\0");
			event = (struct epoll_event){ .events = EPOLLIN | EPOLLET, .data.fd = fd };
			epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
		}
	}
}
