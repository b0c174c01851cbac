// Draws each chart of the page with BokehJS, in the page's colours: taxi/page.py says what a chart is.
(() => {
  "use strict"
  const charts = JSON.parse(document.getElementById("charts").textContent)
  const isDark = matchMedia("(prefers-color-scheme: dark)")
  let ground = document.documentElement  // whose colours a chart is drawn in: the page's, or a sheet of paper's
  const colour = (name) => getComputedStyle(ground).getPropertyValue(`--${name}`).trim()
  const SERIES = ["one", "two", "three", "four"]
  const BEST = "two"
  const DASHES = ["solid", "dashed", "dotted", "dotdash"]
  const MARKERS = ["circle", "x", "triangle", "square"]
  const SHADES = 256
  const isNumber = (values) => values.every((value) => typeof value === "number")

  function frame(chart, options, hovered) {
    const tips = Object.entries(chart.columns).map(([name, values]) =>
      [name, isNumber(values) ? `@{${name}}{0,0.[000]}` : `@{${name}}`])
    const plot = Bokeh.Plotting.figure({
      height: 320, sizing_mode: "stretch_width", tools: [], toolbar_location: null,
      background_fill_alpha: 0, border_fill_alpha: 0, outline_line_alpha: 0, ...options,
    })
    plot.add_tools(new Bokeh.HoverTool({ tooltips: tips, renderers: hovered ?? "auto" }))
    for (const axis of [...plot.below, ...plot.left]) {
      Object.assign(axis, {
        axis_label_text_color: colour("soft"), major_label_text_color: colour("soft"),
        axis_label_text_font_style: "normal", axis_line_color: colour("soft"),
        major_tick_line_color: colour("soft"), minor_tick_line_alpha: 0,
      })
    }
    for (const grid of plot.center) grid.grid_line_color = colour("grid")
    return plot
  }

  function rowsWhere(columns, keep) {
    const [first] = Object.values(columns)
    const places = [...first.keys()].filter(keep)
    return Object.fromEntries(
      Object.entries(columns).map(([name, values]) => [name, places.map((place) => values[place])]))
  }

  const source = (data) => new Bokeh.ColumnDataSource({ data })

  // Splits a name into lines of at most so many characters, where it has blanks.
  function wrapped(name, most) {
    const lines = [""]
    for (const word of name.split(" ")) {
      const line = lines.at(-1) === "" ? word : `${lines.at(-1)} ${word}`
      if (line.length > most && lines.at(-1) !== "") lines.push(word)
      else lines[lines.length - 1] = line
    }
    return lines
  }

  // Names of bars as they stand below them: side by side, in lines where that takes them; none where there is no room.
  function sideBySide(names, width) {
    const room = (width - 60) / names.length / 6 - 1  // characters of a line
    const texts = names.map((name) => wrapped(name, room))
    return texts.every((lines) => lines.length <= 3 && lines.every((line) => line.length < room)) && texts.map((lines) => lines.join("\n"))
  }

  function bars(chart, width) {
    const [x, y] = Object.keys(chart.columns)
    const names = chart.columns[x].map(String)
    const beside = sideBySide(names, width)
    const labels = beside || names
    const plot = frame(chart, { x_range: new Bokeh.FactorRange({ factors: labels }), y_axis_label: y, x_axis_label: x })
    const fills = names.map((name) => colour(name === chart.best ? BEST : "one"))
    plot.vbar({ x: { field: x }, top: { field: y }, bottom: 0, width: 0.8, fill_color: fills, line_alpha: 0, source: source({ ...chart.columns, [x]: labels }) })
    if (chart.ends.length) {
      const [low, high] = [0, 1].map((place) => chart.ends.map((end) => end[place]))
      plot.segment({ x0: labels, x1: labels, y0: low, y1: high, color: colour("ink"), line_width: 1.5 })
    }
    if (!beside) plot.below[0].major_label_orientation = Math.PI / 2.5  // upright
    plot.below[0].major_label_text_font_size = `${Math.min(11, Math.floor((width - 60) / names.length))}px`
    plot.left[0].formatter = new Bokeh.NumeralTickFormatter({ format: "0,0.[00]" })
    if (chart.wanted.length) {
      plot.add_layout(new Bokeh.Span({ location: chart.wanted[0][1], dimension: "width", line_color: colour("ink"), line_dash: "dashed" }))
    }
    plot.center[0].grid_line_alpha = 0
    return plot
  }

  function rows(chart, width) {
    const [y, x] = Object.keys(chart.columns)
    const names = chart.columns[y].map(String)
    const texts = names.map((name) => wrapped(name, (width - 50) / 7))
    const most = Math.max(...texts.map((lines) => lines.length))
    const room = 24 + 16 * most  // a name stands over its bar: beside it a telephone has no room
    const height = 60 + room * names.length
    const plot = frame(chart, { height, y_range: new Bokeh.FactorRange({ factors: [...names].reverse(), range_padding: 0.2, range_padding_units: "absolute" }), x_axis_label: x })
    plot.hbar({ y: { field: y }, right: { field: x }, left: 0, height: 14 / room, fill_color: colour("one"), line_alpha: 0, source: source({ ...chart.columns, [y]: names }) })
    plot.text({ x: 0, y: names, text: texts.map((lines) => lines.join("\n")), y_offset: -9, text_baseline: "bottom", text_font_size: "13px", text_color: colour("ink") })
    plot.left[0].visible = false
    plot.center[1].grid_line_alpha = 0
    return plot
  }

  function legend(plot) {
    for (const one of plot.legend.items === undefined ? [plot.legend].flat() : [plot.legend]) {
      Object.assign(one, { click_policy: "hide", background_fill_alpha: 0, border_line_alpha: 0, label_text_color: colour("ink"), ncols: 2, orientation: "horizontal", padding: 0 })
      plot.remove_layout(one)
      plot.add_layout(one, "above")  // within the frame it hides points
    }
  }

  function each(chart, plot, draw) {
    // there is no half a trial
    if (Object.values(chart.columns)[0].every(Number.isInteger)) plot.below[0].ticker.min_interval = 1
    // in the same order in every report, so that what is called the same looks the same; nothing hides the best
    const values = chart.series ? [...new Set(chart.columns[chart.series].map(String))].sort() : [""]
    const isBest = (value) => chart.best !== "" && value === chart.best
    const drawn = [...values.filter((value) => !isBest(value)), ...values.filter(isBest)]
      .map((value, number) => ({ value, number, isBest: isBest(value) }))
    const others = SERIES.filter((name) => chart.best === "" || name !== BEST)
    for (const one of drawn) {
      const isOf = (place) => !chart.series || String(chart.columns[chart.series][place]) === one.value
      const shade = colour(one.isBest ? BEST : others[one.number % others.length])
      draw(source(rowsWhere(chart.columns, isOf)), { ...one, shade })
    }
    if (chart.wanted.length) {
      const [xs, ys] = [0, 1].map((place) => chart.wanted.map((end) => end[place]))
      plot.line(xs, ys, { color: colour("soft"), line_dash: "dashed" })
    }
    if (chart.series) legend(plot)
  }

  // How lines end tells them apart; where they begin, far above, would leave that no room.
  function nearBest(chart) {
    const y = Object.values(chart.columns)[1]
    const ends = new Map(chart.columns[chart.series].map((value, place) => [value, y[place]]))
    const [low, high] = [Math.min(...y), Math.max(...y)]
    const spread = Math.max(...ends.values()) - low
    const end = spread > 0 ? Math.min(high, low + 10 * spread) : high
    return new Bokeh.Range1d({ start: low - 0.05 * (end - low), end: end + 0.02 * (end - low) })
  }

  function lines(chart) {
    const [x, y] = Object.keys(chart.columns)
    const many = chart.best !== ""  // then the best one stands out of all the others
    const plot = frame(chart, { x_axis_label: x, y_axis_label: y, ...(many ? { y_range: nearBest(chart) } : {}) })
    each(chart, plot, (data, one) => {
      const named = chart.series && (!many || one.isBest) ? { legend_label: one.isBest ? `${chart.series} ${one.value}, the best` : one.value } : {}
      const look = many && !one.isBest ? { color: colour("one"), line_alpha: 0.45 } : { color: one.shade, line_width: 2.5 }
      plot.line({ x: { field: x }, y: { field: y }, source: data, ...look, ...named, line_dash: many ? "solid" : DASHES[one.number % 4] })
      if (!many) plot.scatter({ x: { field: x }, y: { field: y }, source: data, color: one.shade, size: 7, ...named })
    })
    return plot
  }

  function points(chart) {
    const [x, y] = Object.keys(chart.columns)
    const plot = frame(chart, { x_axis_label: x, y_axis_label: y })
    each(chart, plot, (data, one) => {
      plot.scatter({ x: { field: x }, y: { field: y }, source: data, size: one.isBest ? 16 : 9, marker: one.isBest ? "star" : MARKERS[one.number % 4],
                     line_color: one.shade, fill_color: one.shade, fill_alpha: 0.7, legend_label: one.value })
    })
    return plot
  }

  function map(chart, width) {
    const [, value] = Object.keys(chart.columns)
    const rings = (keep) => chart.shapes.filter(([row]) => keep(row))
    const unknown = rings((row) => row < 0)
    const known = rings((row) => row >= 0)
    const values = known.map(([row]) => chart.columns[value][row]).sort((a, b) => a - b)
    const dark = isDark.matches && ground === document.documentElement
    const palette = Bokeh.Palettes.cividis(SHADES)  // dark is small, or light: either way much stands out
    const mapper = new Bokeh.LinearColorMapper({ palette: dark ? palette : [...palette].reverse(), low: values[0] ?? 0, high: values.at(-1) || 1 })
    const plot = frame(chart, { height: Math.min(560, width + 90), match_aspect: true }, [])
    for (const part of [...plot.below, ...plot.left, ...plot.center]) part.visible = false
    // hatched, for the scale has greys of its own
    if (unknown.length) {
      plot.patches(unknown.map((ring) => ring[1]), unknown.map((ring) => ring[2]), { fill_color: colour("box"), line_color: colour("none"), line_width: 0.5,
                   hatch_pattern: "/", hatch_scale: 6, hatch_color: colour("none"), legend_label: chart.blank })
      legend(plot)
    }
    const data = Object.fromEntries(Object.entries(chart.columns).map(([name, all]) => [name, known.map(([row]) => all[row])]))
    const drawn = plot.patches({ xs: { field: "xs" }, ys: { field: "ys" }, source: source({ ...data, xs: known.map((ring) => ring[1]), ys: known.map((ring) => ring[2]) }),
                                 fill_color: { field: value, transform: mapper }, line_color: colour("paper"), line_width: 0.5 })
    plot.toolbar.tools[0].renderers = [drawn]
    plot.text({ x: chart.marks.map((mark) => mark[0]), y: chart.marks.map((mark) => mark[1]), text: chart.marks.map((mark) => mark[2]),
                text_align: "center", text_color: colour("ink"), text_font_style: "bold", text_outline_color: colour("paper") })
    const scale = new Bokeh.ColorBar({ color_mapper: mapper, title: value, background_fill_alpha: 0, title_text_color: colour("soft"),
                                       major_label_text_color: colour("soft"), height: 12, orientation: "horizontal" })
    plot.add_layout(scale, "below")
    return plot
  }

  const KINDS = { bars, rows, lines, points, map }

  // Draws a chart in the colours of its place.
  async function show(chart, place, width) {
    ground = place.classList.contains("sheet") ? place : document.documentElement
    const view = await Bokeh.Plotting.show(KINDS[chart.kind](chart, width), place)
    // nothing is there for the keyboard: its focus would be where nobody sees it
    view.canvas_view.events_el.tabIndex = -1
    return view
  }

  // Paper takes a picture of a chart, as wide as there is room and in light colours: dark ground is not printed.
  async function printed(name, chart, view, width) {
    const picture = document.getElementById(`${name}-printed`)
    if (!isDark.matches) return picture.src = view.export("png").canvas.toDataURL()
    const sheet = document.createElement("div")
    sheet.className = "sheet"
    sheet.style.width = `${width}px`
    document.body.append(sheet)
    picture.src = (await show(chart, sheet, width)).export("png").canvas.toDataURL()
    sheet.remove()
  }

  async function draw() {
    const views = []
    for (const [name, chart] of Object.entries(charts)) {
      const place = document.getElementById(name)
      place.replaceChildren()
      views.push([name, chart, await show(chart, place, place.clientWidth), place.clientWidth])
    }
    for (const view of views) await printed(...view)
    document.documentElement.dataset.drawn = "true"
  }

  isDark.addEventListener("change", draw)
  draw()
})()
