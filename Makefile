# make            build/scache and build/scachectl
# make demo       a private Postfix delivers with and without the cache, and a table
# make test       all tests, against real Postfix; installs what it lacks
# make test-newer  what concerns Postfix, with the one of Debian's backports
# make test-docker  Postfix and the cache in containers, where there is a Docker engine
# make image      the container image scache
# make check      what a change has to pass: lint and test
# make soak       the chaos test for DURATION (10m), pictures and figures in OUT (build/soak)
# make deb        build/scache_VERSION_ARCHITECTURE.deb; make install [DESTDIR=] [PREFIX=/usr/local] without a package
# make screenshots  docs/top.png and docs/dashboard.png anew
# make profile    default.pgo anew, by which the compiler inlines
# make bench      micro-benchmarks, then bench/RESULTS.md and its pictures anew (7 minutes)

VERSION    := $(shell cat VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FREEZE      := github.com/charmbracelet/freeze@v0.2.2
# The build does not depend on git, nor on where it happens.
GOBUILD    := CGO_ENABLED=0 go build -trimpath -buildvcs=false

DURATION := 10m
OUT      := build/soak
PREFIX   := /usr/local
# A recipe would take one with a space for several, and write there, or remove what is there.
$(if $(word 2,x$(DESTDIR)$(PREFIX)x),$(error DESTDIR and PREFIX must not have spaces: $(DESTDIR)$(PREFIX)))
MICRO    := ./timerwheel ./store ./proto ./policy ./postfix ./server # have benchmarks

.PHONY: build install uninstall deb demo test test-newer test-docker image soak check lint bench profile screenshots clean need

build:
	$(GOBUILD) -ldflags "-s -w -X main.version=$(VERSION)" -o build/scache .
	$(GOBUILD) -ldflags "-s -w -X main.version=$(VERSION)" -o build/scachectl ./cmd/scachectl

units    = $(wildcard deploy/systemd/*.service deploy/systemd/*.socket)
defaults = $(wildcard deploy/systemd/*.default)
completions = $(PREFIX)/share/bash-completion/completions

install: build
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin build/scache build/scachectl
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 man/*.8
	install -d $(DESTDIR)$(completions)
	env -u GOARCH -u GOARM go run ./cmd/scachectl completion bash >$(DESTDIR)$(completions)/scachectl
	for unit in $(units); do \
		install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system $$unit && \
		sed -i 's|/usr/sbin/scache|$(PREFIX)/sbin/scache|' $(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit; \
	done
	for file in $(defaults:deploy/systemd/%.default=%); do \
		[ -e $(DESTDIR)/etc/default/$$file ] || \
		install -D -m 644 deploy/systemd/$$file.default $(DESTDIR)/etc/default/$$file || exit; \
	done

# What was configured stays.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/scache $(DESTDIR)$(PREFIX)/sbin/scachectl $(DESTDIR)$(completions)/scachectl $(addprefix $(DESTDIR)$(PREFIX)/share/man/man8/,$(notdir $(wildcard man/*.8))) \
		$(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/,$(notdir $(units)))

deb:
	deploy/deb/build $(VERSION) build

demo: need
	$(GOBUILD) -o build/demo ./demo
	build/demo

# The race detector needs a C compiler.
test: need
	scripts/need gcc libc6-dev iproute2 systemd lintian
	scripts/need bash-completion mandoc prometheus tmux
	go test -race -count=1 -timeout 20m $$(go list ./... | grep -v -e /test/systemd -e /test/deb)
	go test -timeout 5m -run '^$$' -bench . -benchtime 1x $(MICRO)
	go test -race -count=1 -timeout 10m -v ./test/systemd ./test/deb # they say what they cannot test here

# Says so loudly where there are no backports.
test-newer: need
	scripts/need gcc libc6-dev iproute2 lintian mandoc prometheus tmux
	scripts/with-newer-postfix go test -race -count=1 -timeout 10m ./test/protocol ./test/postfix ./test/ctl ./test/deb ./cmd/scachectl/doctor || [ $$? = 77 ]

# Says so loudly where there is no engine. It needs no registry.
test-docker: need
	go test -v -count=1 -timeout 20m ./test/containers -run Docker -docker

image:
	docker build --build-arg VERSION=$(VERSION) -t scache:$(VERSION) -t scache .

# The test bounds its own time.
soak: need
	go test -v -count=1 -timeout 0 ./test/chaos -duration $(DURATION) -out $(abspath $(OUT))

check: lint test

lint: need
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	scripts/need mandoc
	mandoc -T lint -W warning man/*.8

bench: need
	scripts/need gcc libc6-dev strace
	go test -run '^$$' -bench . -benchmem $(MICRO)
	go run ./bench -report bench/RESULTS.md

# What "scachectl top" shows of a Postfix at work, as a picture.
screenshots: need
	scripts/need tmux prometheus
	mkdir -p build
	go test ./test/ctl -count=1 -run 'Test(Top|Dashboard)OfPostfix' -capture $(abspath build)
	cp build/dashboard.png docs
	go run $(FREEZE) build/top.ansi --language ansi --width 1100 -o docs/top.png

# What the compiler inlines is chosen by this profile of the hot path (go build -pgo).
profile:
	go test -run '^$$' -bench 'Miss|Cycle|Session' -benchtime 5s -cpuprofile default.pgo -o /dev/null ./server

need:
	scripts/need postfix

clean:
	rm -rf build
