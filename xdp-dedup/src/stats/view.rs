//! What the live view looks like, in any size of terminal: what matters most keeps its place longest.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    symbols,
    text::{Line, Span, Text},
    widgets::{Bar, BarChart, BarGroup, Cell, LineGauge, Paragraph, Row, Table},
};
use xdp_dedup_common::Verdict;

use super::report::{Report, span};
use crate::state::{Filtered, NOTHING, State};

/// Columns below which lists keep to a name and a rate: no address is cut above.
const NARROW: u16 = 72;
/// Columns from which the two lists stand side by side.
const WIDE: u16 = 2 * NARROW + BETWEEN;
const BETWEEN: u16 = 3;
/// Rows of the histogram, and of the lists that leave it room.
const HISTOGRAM: u16 = 6;
const LISTS: u16 = 8;

/// What is to be seen.
#[derive(Default)]
pub struct View(Option<Seen>);

struct Seen {
    report: Report,
    /// Each interface with its mode, and whether the filter is on it.
    interfaces: Vec<(String, bool)>,
    daemon: Option<u32>,
    observes: bool,
}

impl View {
    /// Of this reading; `None` where nothing is there.
    pub fn of(reading: Option<(State, Report)>) -> Self {
        Self(reading.map(|(state, report)| {
            let interface = |it: &Filtered| (it.name.clone(), it.attached);
            Seen {
                report,
                interfaces: state.interfaces.iter().map(interface).collect(),
                daemon: state.daemon,
                observes: state.maps.policy().is_ok_and(|policy| policy.observe()),
            }
        }))
    }

    /// Draws it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let rows = |wanted, from| u16::from(area.height >= from) * wanted;
        let [status, body, table, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(rows(1, 7)),
            Constraint::Length(rows(1, 4)),
        ])
        .areas(area);
        frame.render_widget(Line::from("q leaves").dim(), keys);
        match &self.0 {
            Some(seen) => {
                frame.render_widget(seen.status_line(status.width), status);
                seen.draw_body(frame, body);
                seen.draw_table(frame, table);
            }
            None => frame.render_widget(Line::from(NOTHING).yellow(), status),
        }
    }
}

impl Seen {
    fn status_line(&self, width: u16) -> Line<'static> {
        let mut spans = Vec::new();
        for (name, _) in self.interfaces.iter().filter(|(_, attached)| !attached) {
            spans.push(Span::from(format!("NOT ON {name}  ")).red().bold());
        }
        if self.observes {
            spans.push(Span::from("observing  ").yellow());
        }
        let rate = |of: &dyn Fn(&str) -> bool| -> Option<f64> {
            let counters = self.report.counters.iter();
            let chosen = counters.filter(|counter| of(counter.verdict));
            chosen.map(|counter| counter.packets_per_second).sum()
        };
        let all = shown(rate(&|_| true));
        let dropped = shown(rate(&|verdict| verdict != Verdict::Pass.name()));
        spans.push(Span::from(format!("{all}/s in  ")));
        let what = if self.observes {
            "would drop"
        } else {
            "dropped"
        };
        spans.push(Span::from(format!("{dropped}/s {what}  ")));
        if width >= NARROW / 2 {
            for (name, _) in self.interfaces.iter().filter(|(_, attached)| *attached) {
                spans.push(Span::from(format!("{name}  ")).green());
            }
            spans.push(match self.daemon {
                Some(pid) => Span::from(format!("daemon {pid}")),
                None => Span::from("no daemon").yellow(),
            });
        }
        Line::from(spans)
    }

    fn draw_body(&self, frame: &mut Frame<'_>, area: Rect) {
        let (reasons, relays) = (self.reasons(), self.relays());
        let [longest, other] = [&reasons, &relays].map(List::height);
        let lists = if area.width >= WIDE {
            longest.max(other)
        } else {
            longest.saturating_add(other)
        };
        let has_histogram =
            area.height >= HISTOGRAM + LISTS && area.width >= self.report.gaps.buckets.len() as u16;
        // What the lists leave.
        let histogram = match has_histogram {
            true => area.height.saturating_sub(lists).max(HISTOGRAM),
            false => 0,
        };
        let [lists, histogram] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(histogram)]).areas(area);
        if has_histogram {
            self.draw_histogram(frame, histogram);
        }
        let [left, right] = if area.width >= WIDE {
            Layout::horizontal([Constraint::Fill(1); 2])
                .spacing(BETWEEN)
                .areas(lists)
        } else {
            // Where both are too long, the relays give way first, down to half of the room.
            let room = lists.height;
            let relays = match room < LISTS {
                true => 0,
                false => relays
                    .height()
                    .min((room / 2).max(room.saturating_sub(reasons.height()))),
            };
            Layout::vertical([Constraint::Fill(1), Constraint::Length(relays)]).areas(lists)
        };
        reasons.draw(frame, left);
        relays.draw(frame, right);
    }

    /// Frames by reason and verdict, on all interfaces together.
    fn reasons(&self) -> List {
        let mut rows: Vec<ListRow> = Vec::new();
        for counter in self
            .report
            .counters
            .iter()
            .filter(|counter| counter.packets > 0)
        {
            let name = [counter.reason.to_owned(), counter.verdict.to_owned()];
            match rows.iter_mut().find(|row| row.name == name) {
                Some(row) => row.add(counter.packets_per_second, counter.packets),
                None => rows.push(ListRow {
                    name,
                    rate: counter.packets_per_second,
                    total: counter.packets,
                }),
            }
        }
        List {
            header: ["reason", "verdict"],
            none: "nothing has come to UDP port 547 yet",
            rows,
        }
    }

    /// Client messages by relay and verdict.
    fn relays(&self) -> List {
        let counters = self.report.relays.iter();
        let rows = counters
            .filter(|counter| counter.packets > 0)
            .map(|counter| ListRow {
                name: [counter.relay.clone(), counter.verdict.to_owned()],
                rate: counter.packets_per_second,
                total: counter.packets,
            });
        List {
            header: ["relay", "verdict"],
            none: "",
            rows: rows.collect(),
        }
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect) {
        let gauge = LineGauge::default()
            .label(format!("table {}", self.report.table.in_words()))
            .ratio(self.report.table.fill())
            .filled_symbol(symbols::line::THICK_HORIZONTAL)
            .unfilled_symbol(symbols::line::HORIZONTAL)
            .filled_style(Color::Green)
            .unfilled_style(Color::DarkGray);
        frame.render_widget(gauge, area);
    }

    /// The gaps as bars over an axis, and where on it the window ends.
    fn draw_histogram(&self, frame: &mut Frame<'_>, area: Rect) {
        let Report {
            gaps,
            window_seconds,
            ..
        } = &self.report;
        let [title, bars, axis, marker] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(1),
            Constraint::Length(1),
        ])
        .areas(area);
        // Columns that a bucket takes, with a gap where there is room for one.
        let step = (area.width / gaps.buckets.len() as u16).clamp(1, 6);
        let bar_width = step.saturating_sub(1).max(1);

        // Cut at the end where it does not fit.
        let heading = format!("gaps (log) {}", gaps.in_words());
        frame.render_widget(Line::from(heading).bold(), title);

        let within = |bound: Option<f64>| bound.is_some_and(|bound| bound <= *window_seconds);
        let chart: Vec<_> = gaps
            .buckets
            .iter()
            .map(|bucket| {
                // One frame shall be seen beside a million.
                let height = (1000.0 * (bucket.packets as f64).ln_1p()) as u64;
                let color = if within(bucket.up_to_seconds) {
                    Color::Green
                } else {
                    Color::Yellow
                };
                Bar::new(height).text_value("").style(color)
            })
            .collect();
        let chart = BarChart::default()
            .data(BarGroup::new(chart))
            .bar_width(bar_width)
            .bar_gap(step - bar_width);
        frame.render_widget(chart, bars);

        let mut labels = String::new();
        let mut place = 0;
        for bucket in &gaps.buckets {
            place += usize::from(step);
            // Whole decades, three buckets apart.
            let decade = bucket.up_to_seconds.filter(|bound| is_decade(*bound));
            if let Some(bound) = decade.filter(|_| step > 1) {
                labels.extend(std::iter::repeat_n(
                    ' ',
                    place.saturating_sub(labels.chars().count()),
                ));
                labels.push_str(&format!("╵{}", span(bound)));
            }
        }
        frame.render_widget(Line::from(labels).dim(), axis);

        let whole = gaps
            .buckets
            .iter()
            .filter(|bucket| within(bucket.up_to_seconds));
        let whole = whole.count() as u16;
        let ends_there = gaps
            .buckets
            .iter()
            .any(|b| b.up_to_seconds == Some(*window_seconds));
        // Inside the bucket that the window cuts.
        let cut = if ends_there { 0 } else { step / 2 };
        let place = usize::from((whole * step + cut).min(area.width.saturating_sub(1)));
        let length = span(*window_seconds);
        let words = format!("window {length}");
        let line = if place > words.len() {
            format!("{words:>width$} ▲", width = place - 1)
        } else {
            format!("{:place$}▲ {words}", "")
        };
        frame.render_widget(Line::from(line).green(), marker);
    }
}

/// Whether it is 10, 100, 1000 microseconds and so on.
fn is_decade(seconds: f64) -> bool {
    let mut microseconds = (seconds * 1e6).round() as u64;
    while microseconds >= 10 && microseconds.is_multiple_of(10) {
        microseconds /= 10;
    }
    microseconds == 1
}

/// Names with their rates and totals.
struct List {
    header: [&'static str; 2],
    /// What stands in place of rows where there are none.
    none: &'static str,
    rows: Vec<ListRow>,
}

struct ListRow {
    name: [String; 2],
    rate: Option<f64>,
    total: u64,
}

impl ListRow {
    fn add(&mut self, rate: Option<f64>, packets: u64) {
        self.rate = self.rate.zip(rate).map(|(one, other)| one + other);
        self.total += packets;
    }
}

impl List {
    /// Rows that it takes with its header and one below it.
    fn height(&self) -> u16 {
        u16::try_from(self.rows.len() + 2).unwrap_or(u16::MAX)
    }

    fn draw(mut self, frame: &mut Frame<'_>, area: Rect) {
        if self.rows.is_empty() {
            frame.render_widget(Paragraph::new(self.none).dim(), area);
            return;
        }
        let is_narrow = area.width < NARROW;
        let has_header = area.height >= 4;
        let room = usize::from(area.height) - usize::from(has_header);
        if self.rows.len() > room {
            // The busiest; those that keep still in their own order behind them.
            self.rows
                .sort_by(|a, b| b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0)));
        }
        let right = |text: String| Cell::from(Text::from(text).alignment(Alignment::Right));
        let rows = self.rows.iter().map(|row| {
            let [name, verdict] = &row.name;
            let style = match verdict.as_str() {
                "pass" => Style::new(),
                _ => Style::new().fg(Color::Cyan),
            };
            let rate = right(format!("{}/s", shown(row.rate)));
            let cells = if is_narrow {
                // Without a column for verdicts, two of one name need them.
                let alike = self.rows.iter().filter(|other| other.name[0] == *name);
                let name = match alike.count() {
                    1 => name.clone(),
                    _ => format!("{verdict} {name}"),
                };
                vec![Cell::from(name), rate]
            } else {
                let (name, verdict) = (name.clone().into(), verdict.clone().into());
                vec![name, verdict, rate, right(row.total.to_string())]
            };
            Row::new(cells).style(style)
        });
        let [name, verdict] = self.header;
        let (widths, header) = if is_narrow {
            (
                vec![Constraint::Fill(1), Constraint::Length(8)],
                vec![name.into(), right("rate".to_owned())],
            )
        } else {
            let widths = [
                Constraint::Max(39),
                Constraint::Length(10),
                Constraint::Length(8),
                Constraint::Length(12),
            ];
            let header = [
                name.into(),
                verdict.into(),
                right("rate".to_owned()),
                right("total".to_owned()),
            ];
            (widths.to_vec(), header.to_vec())
        };
        let mut table = Table::new(rows, widths);
        if has_header {
            let style = Style::new().add_modifier(Modifier::BOLD);
            table = table.header(Row::new(header).style(style));
        }
        frame.render_widget(table, area);
    }
}

/// A rate in at most five characters.
fn shown(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 99.95 => format!("{rate:.1}"),
        Some(rate) if rate < 9999.5 => format!("{rate:.0}"),
        Some(rate) if rate < 999_500.0 => format!("{:.0}k", rate / 1e3),
        Some(rate) => format!("{:.1}M", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
    use xdp_dedup_common::{policy::Window, time::Microseconds};

    use super::*;
    use crate::stats::count::{Counts, sample, sample::counts};

    fn view(change: impl FnOnce(&mut Counts)) -> View {
        let start = Instant::now();
        let before = counts(start, 0, 7, [40, 46]);
        let mut now = counts(start, 1000, 7, [52, 58]);
        change(&mut now);
        View(Some(Seen {
            report: Report::new(&now, Some(&before)),
            interfaces: vec![("eth0".to_owned(), true)],
            daemon: Some(4711),
            observes: false,
        }))
    }

    fn drawn(view: &View, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn lines(view: &View, width: u16, height: u16) -> Vec<String> {
        let buffer = drawn(view, width, height);
        let line = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn any_size_can_be_drawn() {
        let many = view(|counts| {
            let interface = counts.interfaces[0].clone();
            counts.interfaces = (0..64).map(|_| interface.clone()).collect();
            let relay = counts.relays.others;
            counts.relays.relays = (0..256_u128).map(|n| (n.into(), relay)).collect();
        });
        let views = [view(|_| {}), many, View::default()];
        // About each line that is drawn at one, and beyond.
        for width in [0, 1, 2, 21, 22, 43, 44, 65, 71, 72, 146, 147, 200] {
            for height in (0..18).chain([24, 60]) {
                for view in &views {
                    drawn(view, width, height);
                }
            }
        }
    }

    #[test]
    fn a_usual_terminal_shows_everything() {
        let screen = lines(&view(|_| {}), 80, 24);
        for words in [
            "24.0/s in  12.0/s dropped  eth0  daemon 4711",
            "first  ",
            "pass         12.0/s           52",
            "duplicate  ",
            "drop         12.0/s           58",
            "2001:db8::1  ",
            "58: median at most 50us, 99 % at most 50us, largest at most 50us",
            "╵10us    ╵100us",
            "window 200ms ▲",
            "table 17 of 1024 entries",
            "q leaves",
        ] {
            assert!(
                screen.iter().any(|line| line.contains(words)),
                "{words}: {screen:#?}"
            );
        }
    }

    #[test]
    fn a_tiny_terminal_shows_what_goes_on() {
        let screen = lines(&view(|_| {}), 20, 5);
        assert_eq!(
            screen,
            [
                "24.0/s in  12.0/s dr",
                "first         12.0/s",
                "duplicate     12.0/s",
                "",
                "q leaves"
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_tells_apart_what_has_one_name() {
        let screen = lines(&view(|_| {}), 40, 20);
        for words in [
            "first                             12.0/s",
            "duplicate                         12.0/s",
            "pass 2001:db8::1                  12.0/s",
            "drop 2001:db8::1                  12.0/s",
        ] {
            assert!(
                screen.iter().any(|line| line == words),
                "{words}: {screen:#?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_what_goes_on_least() {
        let busier = view(|counts| {
            let start = counts.instant;
            counts.interfaces = sample::counts(start, 0, 7, [41, 58]).interfaces;
        });
        for (height, rows) in [
            (
                3,
                &[
                    "first                    1.0/s",
                    "duplicate               12.0/s",
                ][..],
            ),
            (2, &["duplicate               12.0/s"]),
        ] {
            assert_eq!(lines(&busier, 30, height)[1..], *rows, "{height} rows");
        }
    }

    #[test]
    fn an_interface_without_the_filter_comes_first() {
        let View(Some(mut seen)) = view(|_| {}) else {
            unreachable!("it was made with something to be seen");
        };
        seen.interfaces.push(("eth1".to_owned(), false));
        let screen = lines(&View(Some(seen)), 40, 10);
        assert!(screen[0].starts_with("NOT ON eth1"), "{screen:#?}");
    }

    #[test]
    fn the_window_ends_on_the_axis_where_it_ends_among_the_buckets() {
        // Three columns a bucket: 10, 20, 50, 100 us and so on.
        for (microseconds, column) in [
            (1_000, 7 * 3),
            (2_000, 8 * 3),
            (200_000, 14 * 3),
            // Inside the bucket up to 500 ms.
            (250_000, 14 * 3 + 1),
            (60_000_000, 21 * 3),
        ] {
            let window = Window::new(Microseconds(microseconds)).unwrap();
            let view = view(|counts| counts.window = window);
            let buffer = drawn(&view, 80, 24);
            let all = (0..24).flat_map(|y| (0..80).map(move |x| (x, y)));
            let marker = all.clone().find(|&place| buffer[place].symbol() == "▲");
            assert_eq!(marker.map(|(x, _)| x), Some(column), "{microseconds} us");
        }
    }

    #[test]
    fn rates_take_five_characters_at_the_most() {
        for (rate, text) in [
            (None, "-"),
            (Some(0.0), "0.0"),
            (Some(99.94), "99.9"),
            (Some(99.96), "100"),
            (Some(9999.4), "9999"),
            (Some(9999.6), "10k"),
            (Some(999_499.0), "999k"),
            (Some(999_501.0), "1.0M"),
            (Some(14_880_000.0), "14.9M"),
        ] {
            assert_eq!(shown(rate), text);
        }
    }
}
