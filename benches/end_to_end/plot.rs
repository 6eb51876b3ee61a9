//! The medians as a bar chart, in SVG, which browsers show light or dark as their user likes it.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::design::Design;

/// What is plotted besides the bare loop, which is the line at 1.
const BARS: [Design; 5] = [
    Design::Serve,
    Design::AxumServe,
    Design::Locked,
    Design::ByHand,
    Design::Nchan,
];

// Lengths are in pixels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 400.0;
/// The upper and the lower end of the bars.
const TOP: f64 = 64.0;
const BASE: f64 = 310.0;
const LEFT: f64 = 62.0;
/// Between two panels, with room for the axis of the second.
const BETWEEN: f64 = 84.0;
const RIGHT: f64 = 16.0;

/// A group of bars: its label, of which each part between commas is a line, and the value for each of [`BARS`], if it was measured.
type Group = (&'static str, Vec<(Design, f64)>);

/// Bars that share an axis.
struct Panel {
    title: &'static str,
    axis: &'static str,
    /// What is marked with a line, and where.
    line: Option<(&'static str, f64)>,
    digits: usize,
    groups: Vec<Group>,
}

/// What has been measured for the chart so far.
pub(crate) struct Plot {
    cpu: Panel,
    memory: Panel,
}

impl Plot {
    pub(crate) fn new() -> Self {
        Self {
            cpu: Panel {
                title: "CPU of the server per delivered event",
                axis: "times the bare send loop",
                line: Some(("bare send loop", 1.0)),
                digits: 2,
                groups: Vec::new(),
            },
            memory: Panel {
                title: "Memory of an idle connection",
                axis: "KB of RSS",
                line: None,
                digits: 1,
                groups: Vec::new(),
            },
        }
    }

    pub(crate) fn cpu(&mut self, label: &'static str, value: impl Fn(Design) -> f64) {
        self.cpu.add(label, value);
    }

    pub(crate) fn memory(&mut self, label: &'static str, value: impl Fn(Design) -> f64) {
        self.memory.add(label, value);
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let panels: Vec<_> = [&self.cpu, &self.memory]
            .into_iter()
            .filter(|panel| !panel.groups.is_empty())
            .collect();
        let groups: usize = panels.iter().map(|panel| panel.groups.len()).sum();
        let between = BETWEEN * panels.len().saturating_sub(1) as f64;
        // The same for each group, in whatever panel.
        let group = (WIDTH - LEFT - RIGHT - between) / groups.max(1) as f64;
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">
<style>
text {{ fill: #24292f }} .quiet {{ fill: #57606a }} .grid {{ stroke: #d0d7de }} .mark {{ stroke: #24292f; stroke-dasharray: 5 4 }}
.value {{ paint-order: stroke; stroke: #fff; stroke-width: 3px }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #e6edf3 }} .quiet {{ fill: #9ea7b3 }} .grid {{ stroke: #3d444d }} .mark {{ stroke: #e6edf3 }} .value {{ stroke: #0d1117 }}
}}
</style>
"#
        );
        let mut left = LEFT;
        for panel in &panels {
            panel.draw(&mut svg, left, group);
            left += group * panel.groups.len() as f64 + BETWEEN;
        }
        legend(&mut svg, &panels);
        svg += "</svg>\n";
        fs::write(path, svg)
    }
}

impl Panel {
    fn add(&mut self, label: &'static str, value: impl Fn(Design) -> f64) {
        let values = BARS.map(|design| (design, value(design)));
        let measured = values.into_iter().filter(|(_, value)| value.is_finite());
        self.groups.push((label, measured.collect()));
    }

    fn draw(&self, svg: &mut String, left: f64, group: f64) {
        let right = left + group * self.groups.len() as f64;
        let values = self.groups.iter().flat_map(|(_, bars)| bars);
        let most = values.map(|&(_, value)| value).fold(1.0, f64::max);
        let step = step(most);
        let ticks = (most / step).ceil();
        let y = |value: f64| BASE - (BASE - TOP) * value / (ticks * step);
        let mut text = |x: f64, y: f64, rest: &str, what: &str| {
            writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" {rest}>{what}</text>"#)
                .expect("a string takes everything");
        };
        text(
            left,
            28.0,
            r#"font-size="14" font-weight="600""#,
            self.title,
        );
        let middle = (TOP + BASE) / 2.0;
        let x = left - 44.0;
        let turned =
            format!(r#"class="quiet" text-anchor="middle" transform="rotate(-90 {x} {middle})""#);
        text(x, middle, &turned, self.axis);
        for tick in 0..=ticks as usize {
            let value = tick as f64 * step;
            let digits = usize::from(step < 1.0);
            let label = format!("{value:.digits$}");
            let quiet = r#"class="quiet" text-anchor="end""#;
            text(left - 8.0, y(value) + 4.0, quiet, &label);
        }
        for (n, (label, _)) in self.groups.iter().enumerate() {
            let x = left + group * (n as f64 + 0.5);
            for (row, words) in label.split(", ").enumerate() {
                let y = BASE + 19.0 + 15.0 * row as f64;
                text(x, y, r#"text-anchor="middle""#, words);
            }
        }
        for tick in 0..=ticks as usize {
            let y = y(tick as f64 * step);
            line(svg, "grid", left, right, y);
        }
        if let Some((_, value)) = self.line {
            line(svg, "mark", left, right, y(value));
        }
        for (n, (_, bars)) in self.groups.iter().enumerate() {
            // A bar's width is left between groups.
            let width = group / (bars.len() as f64 + 1.0);
            for (at, &(design, value)) in bars.iter().enumerate() {
                let x = left + group * n as f64 + width * (at as f64 + 0.5);
                let (y, digits) = (y(value), self.digits);
                writeln!(
                    svg,
                    r#"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" rx="1.5" fill="{}"><title>{}: {value:.digits$}</title></rect>
<text x="{:.1}" y="{:.1}" class="value" font-size="9.5" text-anchor="middle">{value:.digits$}</text>"#,
                    x + 1.0,
                    width - 2.0,
                    BASE - y,
                    colour(design),
                    design.name(),
                    x + width / 2.0,
                    y - 4.0,
                )
                .expect("a string takes everything");
            }
        }
    }
}

/// The names of what is there, centred below everything.
fn legend(svg: &mut String, panels: &[&Panel]) {
    /// Of a letter, on average, and of what stands around a name.
    const LETTER: f64 = 6.6;
    const AROUND: f64 = 40.0;
    let groups = panels.iter().flat_map(|panel| &panel.groups);
    let shown: Vec<_> = groups.flat_map(|(_, bars)| bars).map(|bar| bar.0).collect();
    let lines = panels.iter().filter_map(|panel| panel.line);
    let names = lines.map(|(name, _)| (name, None)).chain(
        BARS.iter()
            .filter(|design| shown.contains(design))
            .map(|&design| (design.name(), Some(design))),
    );
    let names: Vec<_> = names.collect();
    let width = |name: &str| name.len() as f64 * LETTER + AROUND;
    let all: f64 = names.iter().map(|(name, _)| width(name)).sum();
    let (mut x, y) = ((WIDTH - all) / 2.0, HEIGHT - 28.0);
    for (name, design) in names {
        match design {
            None => line(svg, "mark", x, x + 18.0, y - 4.0),
            Some(design) => writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{:.1}" width="14" height="10" rx="1.5" fill="{}"/>"#,
                y - 9.0,
                colour(design)
            )
            .expect("a string takes everything"),
        }
        writeln!(svg, r#"<text x="{:.1}" y="{y}">{name}</text>"#, x + 22.0)
            .expect("a string takes everything");
        x += width(name);
    }
}

fn line(svg: &mut String, class: &str, left: f64, right: f64, y: f64) {
    writeln!(
        svg,
        r#"<line class="{class}" x1="{left:.1}" x2="{right:.1}" y1="{y:.1}" y2="{y:.1}"/>"#
    )
    .expect("a string takes everything");
}

/// Between two ticks, so that there are about five.
fn step(most: f64) -> f64 {
    let steps = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
    let fits = |&step: &f64| most / step <= 6.0;
    steps.into_iter().find(fits).unwrap_or(most / 5.0)
}

/// Neither lost on white nor on black.
fn colour(design: Design) -> &'static str {
    match design {
        Design::Bare | Design::Reactor | Design::Tasks => "#8b949e",
        Design::Serve => "#1f77d0",
        Design::AxumServe => "#79b4ee",
        Design::Locked => "#d9822b",
        Design::ByHand => "#a07cd6",
        Design::Bounded => "#c9a227",
        Design::Nchan => "#3fa46b",
    }
}
