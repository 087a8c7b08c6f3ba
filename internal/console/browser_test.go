package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/simlatch/simlatch/internal/auth"
)

// Browser tests run in Chromium: when TEST_CHROMIUM is "auto", as under "make
// test", it must be there; when it is unset they run where it is; and when it is
// "off" they do not.

// chromium is the browser of this process.
var chromium struct {
	once sync.Once
	ctx  context.Context
	err  error
}

var errNoChromium = errors.New("there is no Chromium in PATH (chromium, chromium-browser or google-chrome)")

func startChromium() {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		chromium.err = errNoChromium
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:len(chromedp.DefaultExecAllocatorOptions):len(chromedp.DefaultExecAllocatorOptions)],
		chromedp.ExecPath(path), chromedp.WindowSize(1280, 900))
	if os.Getuid() == 0 { // it refuses its sandbox to root
		options = append(options, chromedp.NoSandbox)
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, end := chromedp.NewContext(allocator)
	chromium.ctx, chromium.err = ctx, chromedp.Do(ctx)
	atEnd(func() { _ = chromedp.Cancel(ctx); end(); endAllocator() })
}

// A tab is a page in the browser, in a session of its own.
type tab struct {
	*testing.T

	ctx   context.Context
	scene *scene
	mu    sync.Mutex
	said  []string // what the page's console was told
}

// newTab opens a tab, and signs in with a role; "" is nobody.
func newTab(t *testing.T, role auth.Role) *tab {
	t.Helper()
	switch {
	case os.Getenv("TEST_CHROMIUM") == "off":
		t.Skip("TEST_CHROMIUM is off")
	case testing.Short(): // under the race detector: the tests without a browser reach the same code
		t.Skip("a browser takes long")
	}
	chromium.once.Do(startChromium)
	switch {
	case errors.Is(chromium.err, errNoChromium) && os.Getenv("TEST_CHROMIUM") == "":
		t.Skip(chromium.err)
	case chromium.err != nil:
		t.Fatal(chromium.err)
	}
	b := &tab{T: t, scene: sharedScene(t)}
	ctx, end := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithTimeout(ctx, 2*patience)
	t.Cleanup(cancel)
	b.do(chromedp.Navigate("about:blank"))
	if err := chromedp.Listen(b.ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	if role != "" {
		b.open("/sign-in")
		b.fill("name", operatorOf(role))
		b.fill("password", password)
		b.press("Sign in")
		b.sees(".who", string(role))
	}
	return b
}

// hear takes what the page complains about.
func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && !strings.Contains(e.Entry.Text, "the server responded with a status of 4") {
			b.said = append(b.said, e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, e.ExceptionDetails.Text)
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatalf("%v\nthe page: %s", err, b.text("body"))
	}
}

// eval evaluates an expression in the page.
func eval[T any](b *tab, expression string) (v T) {
	b.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return v
}

// open opens a page of the console, and checks it.
func (b *tab) open(path string) {
	b.Helper()
	b.do(chromedp.Navigate(b.scene.url + "/console" + path))
	b.check()
}

func quoted(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// text is the text of the first element that a selector finds.
func (b *tab) text(selector string) string {
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%s)?.innerText ?? ""`, quoted(selector))))
	if err != nil {
		return err.Error()
	}
	return v
}

// sees waits until an element has a text in it.
func (b *tab) sees(selector, text string) {
	b.Helper()
	b.waits(fmt.Sprintf(`[...document.querySelectorAll(%s)].some((e) => e.innerText.includes(%s))`, quoted(selector), quoted(text)),
		fmt.Sprintf("%s says %q", selector, text))
}

// waits waits until an expression is true.
func (b *tab) waits(expression, what string) {
	b.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		// In the midst of a navigation there is nothing to ask.
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && ok {
			return
		}
		if time.Now().After(deadline) || b.ctx.Err() != nil {
			b.Fatalf("it never came to be that %s; %v\nthe page, at %s: %s", what, err, b.at(), b.text("body"))
		}
	}
}

// lacks checks that no element has a text in it.
func (b *tab) lacks(selector, text string) {
	b.Helper()
	if eval[bool](b, fmt.Sprintf(`[...document.querySelectorAll(%s)].some((e) => e.innerText.includes(%s))`, quoted(selector), quoted(text))) {
		b.Errorf("%s says %q", selector, text)
	}
}

// at is the address of the page.
func (b *tab) at() string {
	v, _ := chromedp.Run(b.ctx, chromedp.Location()) // "" where there is none
	return strings.TrimPrefix(v, b.scene.url)
}

// fill types into the visible field with a name, as a person would; rather into
// one of a form that changes something than of a filter.
func (b *tab) fill(name, value string) {
	b.Helper()
	field := fmt.Sprintf(`(%s ?? %s)`, visible(fmt.Sprintf(`form[method=post] [name=%q]:not([type=hidden])`, name)),
		visible(fmt.Sprintf(`[name=%q]:not([type=hidden])`, name)))
	b.waits(field+` !== undefined`, "there is a field "+name)
	ok := eval[bool](b, fmt.Sprintf(`(() => { const f = %s; f.focus();
		if (f.tagName === "SELECT" || f.type === "datetime-local") { f.value = %s; f.dispatchEvent(new Event("change", { bubbles: true })); return false; }
		if (f.type === "checkbox") { f.checked = %s === "true"; return false; }
		f.select(); return true; })()`, field, quoted(value), quoted(value)))
	if ok {
		b.do(chromedp.KeyEvent("\b"))
		if len(value) > 200 || strings.Contains(value, "\n") { // pasted
			_ = eval[string](b, fmt.Sprintf(`document.activeElement.value = %s`, quoted(value)))
			return
		}
		b.do(chromedp.KeyEvent(value))
	}
}

// keys presses keys.
func (b *tab) keys(keys string) {
	b.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// visible is the expression for the first visible element that a selector finds.
func visible(selector string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%s)].find((e) => e.checkVisibility())`, quoted(selector))
}

// unfold opens what is folded under a title.
func (b *tab) unfold(title string) {
	b.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll("summary")].find((e) => e.innerText.includes(%s))`, quoted(title))
	b.waits(find+` !== undefined`, "there is a fold "+title)
	_ = eval[bool](b, find+`.parentElement.open = true`)
}

// press clicks the visible button or link with a text.
func (b *tab) press(text string) {
	b.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll("button, a")].find((e) => e.checkVisibility() && !e.disabled && e.innerText.replace(/\s+/g, " ").trim().startsWith(%s))`, quoted(text))
	b.waits(find+` !== undefined`, "there is something to press that says "+text)
	// What is pressed may lead away at once.
	_, err := chromedp.Run(b.ctx, chromedp.Evaluate[chromedp.Void](`setTimeout(() => `+find+`.click())`))
	if err != nil {
		b.Fatal(err)
	}
	// The page may go away while this waits for it to.
	_, _ = chromedp.Run(b.ctx, chromedp.Evaluate[bool](`new Promise((done) => setTimeout(() => done(true), 20))`, chromedp.EvalAwaitPromise))
	b.waits(`document.readyState === "complete"`, "the page is there")
}

// dark has pages in the colours for the dark, or for the light.
func (b *tab) dark(on bool) {
	b.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	_, err := cdp.Call(b.ctx, chromedp.FromContext(b.ctx).Target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
	})
	if err != nil {
		b.Fatal(err)
	}
}
