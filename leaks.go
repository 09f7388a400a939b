package apikeys

// Which logs of the running configuration would write keys in clear. Caddy shows modules neither its logging
// configuration nor its logs; but a logger that it hands out holds the cores of all logs that get its entries, and
// a core can be asked, without writing anything, which loggers it listens to and where its fields go.

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const accessLogPrefix = "http.log.access"

// gatewayLoggers are the loggers, beside those of access logs, whose entries can hold what a request carried.
var gatewayLoggers = []string{
	"http.log.error",
	"http.log.trace",
	"http.handlers.reverse_proxy",
	"http.handlers.rewrite",
	"http.handlers.api_keys",
	"http.stdlib",
	"events",
}

// coreLoggers belong to Caddy itself, which writes them to the default log only.
var coreLoggers = []string{"admin.api", "admin"}

// leakingLogs names the logs of the running configuration that would write keys in clear, because they receive
// entries about requests and their encoder is not, and does not wrap, RedactEncoder. The default log is `default`,
// the access log of a site has the name that the site gives it, such as `log0`. Caddy does not tell the name of
// any other: it is called by the first of the loggers it receives, such as `http.log.error`, and by
// `http.log.access.*` if it is an access log that no server mentions (sites choose it with `log_name`).
//
// A log that discards its entries, or takes none below PANIC, is no leak. The entries of a `core` module
// of a log can't be seen from here, nor can Caddy's `sink`.
func leakingLogs(ctx caddy.Context, accessLoggers []string) []string {
	loggers := append(slices.Clone(accessLoggers), gatewayLoggers...)
	for _, name := range accessLoggers {
		loggers = append(loggers, strings.Replace(name, accessLogPrefix, "http.log.error", 1))
	}
	var names []string
	defaultLog := caddy.Log().Core()
	defaultReceives := receivedLoggers(defaultLog, loggers)
	skipDefault := false // it is among the cores below, too, where nothing but what it receives tells it
	if writesClear(defaultLog) && len(defaultReceives)+len(receivedLoggers(defaultLog, coreLoggers)) > 0 {
		names = append(names, caddy.DefaultLoggerName)
		skipDefault = true
	}
	for _, core := range coresOf(ctx, "") {
		receives := receivedLoggers(core, loggers)
		if len(receives) == 0 || !writesClear(core) {
			continue
		}
		if skipDefault && slices.Equal(receives, defaultReceives) {
			skipDefault = false
			continue
		}
		names = append(names, logNames(receives)...)
	}
	if slices.ContainsFunc(coresOf(ctx, accessLogPrefix), func(core zapcore.Core) bool {
		return core.Enabled(zapcore.ErrorLevel) && len(receivedLoggers(core, loggers)) == 0 && writesClear(core)
	}) {
		names = append(names, accessLogPrefix+".*")
	}
	return sortedNames(names)
}

// logNames returns what to call a log that receives these loggers.
func logNames(receives []string) []string {
	var names []string
	for _, logger := range receives {
		name, ok := strings.CutPrefix(logger, accessLogPrefix+".")
		if !ok {
			return []string{logger}
		}
		names = append(names, name)
	}
	return names
}

// sortedNames returns the names once each, `default` first.
func sortedNames(names []string) []string {
	slices.SortFunc(names, func(a, b string) int {
		if (a == caddy.DefaultLoggerName) != (b == caddy.DefaultLoggerName) {
			if a == caddy.DefaultLoggerName {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(names)
}

// accessLoggerNames returns the loggers to which the servers of app write their access logs, sorted. For a request
// to a host that has no log of its own, that is the server's default logger or, without one, `http.log.access`.
func accessLoggerNames(app *caddyhttp.App) []string {
	var loggers []string
	for _, server := range app.Servers {
		if server.Logs == nil {
			continue
		}
		var names []string
		if !server.Logs.SkipUnmappedHosts {
			names = append(names, server.Logs.DefaultLoggerName)
		}
		for _, ofHost := range server.Logs.LoggerNames {
			names = append(names, ofHost...)
		}
		for _, name := range names {
			loggers = append(loggers, strings.TrimSuffix(accessLogPrefix+"."+name, "."))
		}
	}
	slices.Sort(loggers)
	return slices.Compact(loggers)
}

// loggerName is a module in name only: Caddy finds the logs of a module by its ID.
type loggerName string

// CaddyModule returns the module information.
func (name loggerName) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: caddy.ModuleID(name)}
}

// coresOf returns one core for each log that receives something of this logger or of those below it. The
// empty name has all loggers below it.
func coresOf(ctx caddy.Context, logger string) []zapcore.Core {
	core := ctx.Logger(loggerName(logger)).Core()
	// zap joins several cores in a slice type of its own. Were it no slice, all logs would be judged as one:
	// still none that leaks passes for clean.
	tee := reflect.ValueOf(core)
	if tee.Kind() != reflect.Slice {
		return []zapcore.Core{core}
	}
	cores := make([]zapcore.Core, 0, tee.Len())
	for i := range tee.Len() {
		if core, ok := tee.Index(i).Interface().(zapcore.Core); ok {
			cores = append(cores, core)
		}
	}
	return cores
}

// receivedLoggers returns which of the loggers write to core. A log that takes an error takes all that a gateway
// says above the log's level.
func receivedLoggers(core zapcore.Core, loggers []string) []string {
	var names []string
	for _, logger := range loggers {
		if acceptsLogger(core, logger) && !slices.Contains(names, logger) {
			names = append(names, logger)
		}
	}
	return names
}

// acceptsLogger asks core for an entry that is then not written. A sampling core counts entries by their message,
// and may refuse one that it takes for a repetition; hence more than one message.
func acceptsLogger(core zapcore.Core, logger string) bool {
	for try := range 3 {
		ent := zapcore.Entry{
			Level:      zapcore.ErrorLevel,
			Time:       time.Now(),
			LoggerName: logger,
			Message:    "api_keys probes " + logger + " " + strconv.Itoa(try),
		}
		if core.Check(ent, nil) != nil {
			return true
		}
	}
	return false
}

// writesClear reports whether core has an encoder that fields reach without passing a RedactEncoder.
func writesClear(core zapcore.Core) bool {
	probe := new(encoderProbe)
	core.With([]zapcore.Field{zap.Inline(probe)})
	return probe.guarded < probe.encoders
}

// encoderProbe is a field that counts the encoders it is added to. It adds itself to each once more: a
// RedactEncoder counts it as guarded, and keeps it to itself. Only copies of encoders ever see it, because
// With makes one for each core and no entry is written by it.
type encoderProbe struct{ encoders, guarded int }

// MarshalLogObject implements zapcore.ObjectMarshaler. An encoder of a third party that can't bear the probe is
// not one of ours.
func (p *encoderProbe) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	p.encoders++
	defer func() { _ = recover() }()
	_ = enc.AddReflected("api_keys", p)
	return nil
}

// Interface guard.
var _ zapcore.ObjectMarshaler = (*encoderProbe)(nil)
