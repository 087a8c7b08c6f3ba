package console_test

import "strings"

// pageCheck finds what is wrong with a page for those who cannot see it well, or
// use no mouse: its title, its headings and landmarks, what its fields, tables and
// pictures are called, and the contrast of each text, as it is computed, with what
// is behind it (WCAG 2.2, 1.4.3: 4.5, and 3 for large text).
const pageCheck = `(() => {
	const wrong = [];
	const all = (s) => [...document.querySelectorAll(s)];
	const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
	const name = (e) => e.outerHTML.slice(0, 120);
	if (!/ · Simlatch$/.test(document.title)) wrong.push("title: " + document.title);
	if (document.documentElement.lang !== "en") wrong.push("no language");
	if (all("h1").length !== 1) wrong.push(all("h1").length + " h1");
	if (all("main").length !== 1 || all("body > header").length !== 1) wrong.push("landmarks");
	let level = 1;
	for (const h of all("h1, h2, h3, h4").filter(seen)) {
		const own = Number(h.tagName[1]);
		if (own > level + 1) wrong.push("heading " + own + " under " + level + ": " + h.innerText);
		level = own;
	}
	const ids = all("[id]").map((e) => e.id);
	for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) wrong.push("two elements have the id " + id);
	for (const f of all("input:not([type=hidden]), select, textarea")) {
		if (!(f.labels?.length || f.ariaLabel)) wrong.push("no label: " + name(f));
		for (const id of (f.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean)) {
			if (!document.getElementById(id)) wrong.push("described by nothing: " + name(f));
		}
	}
	for (const t of all("table")) {
		if (!t.caption?.textContent || !t.tHead?.querySelector("th[scope=col]")) wrong.push("a table without caption or heads");
	}
	for (const b of all("button, a[href]")) {
		if (!(b.textContent.trim() || b.ariaLabel)) wrong.push("nothing says what it does: " + name(b));
		if (seen(b) && b.tabIndex < 0) wrong.push("not to be reached by keyboard: " + name(b));
	}
	for (const s of all("svg")) {
		if (!s.ariaHidden && !(s.getAttribute("role") === "img" && s.ariaLabel)) wrong.push("a picture without a name: " + name(s));
	}
	for (const s of all(".scroll, pre")) {
		if (s.scrollWidth > s.clientWidth && s.tabIndex < 0) wrong.push("scrolls, and not by keyboard: " + name(s));
	}
	if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window: " + document.documentElement.scrollWidth);
	for (const a of all("a[href^='#']")) if (!document.querySelector(a.getAttribute("href"))) wrong.push("leads nowhere: " + name(a));

	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (css) => {
		canvas.clearRect(0, 0, 1, 1);
		canvas.fillStyle = css;
		canvas.fillRect(0, 0, 1, 1);
		const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
		return [r, g, b, a / 255];
	};
	const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])).concat(1);
	const behind = (e) => {
		const layers = [];
		for (; e; e = e.parentElement) {
			const c = rgba(getComputedStyle(e).backgroundColor);
			if (c[3] > 0) layers.push(c);
			if (c[3] === 1) break;
		}
		return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
	};
	const light = (c) => {
		const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	let texts = 0;
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.data.trim() || !seen(e) || e.closest("script, noscript, option, .hidden, :disabled")) continue;
		texts++;
		const style = getComputedStyle(e), ground = behind(e);
		const a = light(over(rgba(style.color), ground)), b = light(ground);
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
		if (ratio < (large ? 3 : 4.5)) wrong.push("contrast " + ratio.toFixed(2) + ": " + walker.currentNode.data.trim().slice(0, 40));
	}
	if (texts < 3) wrong.push("there is hardly any text");
	return wrong;
})()`

// check checks the page that the tab shows, in the light and in the dark, and that
// it had nothing to complain about.
func (b *tab) check() {
	b.Helper()
	for _, dark := range []bool{true, false} {
		b.dark(dark)
		if wrong := eval[[]string](b, pageCheck); len(wrong) > 0 {
			b.Errorf("%s (dark: %v):\n\t%s", b.at(), dark, strings.Join(wrong, "\n\t"))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.said) > 0 {
		b.Errorf("%s: the browser complains:\n\t%s", b.at(), strings.Join(b.said, "\n\t"))
		b.said = nil
	}
}
