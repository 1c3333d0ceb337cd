package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/scache/scache/client"
)

// exporterAddress is where metrics are served by default. In Prometheus's list of
// exporters' ports 9100 to 9999 are all taken, and those from 10000 on are being
// given out in turn: this one is far from both, and ends like SMTP's.
const exporterAddress = "127.0.0.1:10925"

func (a *app) exporterCommand() *cobra.Command {
	var address string
	c := &cobra.Command{
		Use:   "exporter",
		Short: "Serve metrics for Prometheus",
		Long: `Exporter serves the cache's statistics at /metrics, in the form of Prometheus, and
asks the cache whenever it is asked itself. --socket may be given several times:
all metrics have a label socket. /healthz answers as long as the exporter runs;
whether a cache does is in the metric scache_up.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.export(c.Context(), address)
		},
	}
	c.Flags().StringVar(&address, "listen", exporterAddress, "`address` and port to serve at")
	return c
}

// export serves until the context ends.
func (a *app) export(ctx context.Context, address string) error {
	sockets, err := a.paths(ctx)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil && port == "" { // any would be taken
		err = errors.New("no port")
	}
	if err != nil {
		return fmt.Errorf("--listen: want an address and a port: %w: %w", err, errUsage)
	}
	handler, err := a.metricsHandler(sockets)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	if a.screen.json {
		a.screen.printJSON(map[string]any{"listen": listener.Addr().String(), "sockets": sockets})
	} else {
		a.screen.printf("serving http://%s/metrics about %v\n", listener.Addr(), sockets)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		last, cancel := context.WithTimeout(context.Background(), a.timeout)
		defer cancel()
		server.Shutdown(last)
	})
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done // those who have asked get their answers
	return nil
}

// scrapesAtATime bounds what many who ask at a time cost the cache.
const scrapesAtATime = 4

func (a *app) metricsHandler(sockets []string) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	err := errors.Join(
		registry.Register(newCollector(sockets, a.statistics)),
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtATime}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `<title>scache</title><a href="/metrics">metrics</a> <a href="/healthz">healthz</a>`)
	})
	return mux, nil
}

// statistics asks the cache at a socket for what it has counted.
func (a *app) statistics(ctx context.Context, socket string) (s client.Statistics, err error) {
	err = a.askAt(ctx, socket, func(ctx context.Context, c *client.Client) (err error) {
		s, err = c.Statistics(ctx)
		return err
	})
	return s, err
}
