package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// callbackAnswers are the statuses with which attempts are answered: by ICCID,
// and under "" those of all other devices.
type callbackAnswers map[string][]int

// parseAnswers reads the values of --answer.
func parseAnswers(texts []string) (callbackAnswers, error) {
	answers := callbackAnswers{}
	for _, text := range texts {
		iccid, list, named := strings.Cut(text, "=")
		if !named {
			iccid, list = "", text
		}
		if named {
			var err error
			if iccid, err = parseICCID("answer", iccid); err != nil {
				return nil, err
			}
		}
		if answers[iccid] != nil {
			return nil, usagef("--answer %s: what to answer there was said before", text)
		}
		for status := range strings.SplitSeq(list, ",") {
			n, err := strconv.Atoi(strings.TrimSpace(status))
			if err != nil || n < 200 || n > 599 {
				return nil, usagef("--answer %s: %q is not an HTTP status from 200 to 599", text, status)
			}
			answers[iccid] = append(answers[iccid], n)
		}
	}
	return answers, nil
}

// parseICCID reads an ICCID in a flag.
func parseICCID(flag, text string) (string, error) {
	id, err := license.ParseICCID(text)
	if err != nil {
		return "", usagef("--%s: %w", flag, err)
	}
	return string(id), nil
}

// of is the answer to the n-th attempt, counted from 0, of a device's message:
// the last one also to all that follow.
func (a callbackAnswers) of(iccid string, n int) int {
	list := a[iccid]
	if list == nil {
		list = a[""]
	}
	if list == nil {
		return http.StatusOK
	}
	return list[min(n, len(list)-1)]
}

// run runs the command for a message, unless it has run for it before.
func (r *callbackReceiver) run(ctx context.Context, c *receivedCallback, told *toldMessage) error {
	r.running.Lock()
	defer r.running.Unlock()
	if told.ran {
		return nil
	}
	shell, flag := "sh", "-c"
	if runtime.GOOS == "windows" {
		shell, flag = "cmd", "/C"
	}
	cmd := exec.CommandContext(ctx, shell, flag, r.o.command)
	cmd.Env = append(os.Environ(), callbackEnv(c.m)...)
	cmd.Stdin = bytes.NewReader(c.body)
	cmd.Stdout, cmd.Stderr = r.messages, r.messages // our standard output is for messages
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the command of --exec: %w", err)
	}
	told.ran = true
	return nil
}

// callbackEnv is a message as a command's environment.
func callbackEnv(m *m2m.CallbackMessage) []string {
	done, fault := response(m), fault(m)
	var env []string
	for _, v := range []struct{ name, value string }{
		{"ICCID", m.ICCID()},
		{"IMEI", m.IMEI()},
		{"MDN", m.MDN()},
		{"REQUEST", m.RequestID},
		{"STATUS", m.Status},
		{"ACTION", done.Action},
		{"SKU", done.SKUNumber},
		{"FAULTCODE", fault.FaultCode},
		{"FAULTSTRING", fault.FaultString},
		{"COUNT", strconv.Itoa(m.CallbackCount)},
	} {
		env = append(env, "CALLBACK_"+v.name+"="+printable(v.value))
	}
	return env
}
