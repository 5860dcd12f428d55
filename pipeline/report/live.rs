//! The live view of a training run: curves, the state of the feed and the recent epochs, drawn in the terminal until the run
//! ends or someone stops it.
//!
//! It draws on stderr, as the progress bar does, on the alternate screen, and gives the terminal back however the run ends:
//! the guard is dropped on success, error and panic alike, and the first signal ends the view, not only the run, so that a
//! second signal, which ends the process at once, finds the terminal as it was.
//!
//! Nothing in it is cut: where there is no room for all, what matters less is left out whole.

mod plot;
mod screen;

use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};

use super::bar::clock;
use super::progress::{Phase, Snapshot};
use super::run::{EpochMetrics, StepPoint};
use super::terminal::training;
use crate::flow::{Error, NodeReport};
use crate::plan::shorten;
use plot::Drawing;
use screen::TakenScreen;
pub(super) use screen::give_back;

/// What does not change while a run goes on.
#[derive(Clone, Debug)]
pub struct Title {
    /// What is trained on what.
    pub text: String,
    /// Passes over the training split.
    pub epochs: u32,
    /// Steps of one pass.
    pub steps_per_epoch: u64,
}

/// The view; the terminal is given back when it is dropped.
pub struct LiveView(TakenScreen);

/// Shortest and lowest terminal in which there is something to see; below, the view says so.
const SIZE_MIN: (u16, u16) = (60, 15);
/// From here on there is room for the feed beside the epochs, and a frame around both.
const SIZE_FOR_FEED: (u16, u16) = (80, 22);
/// From here on the learning rate has a plot of its own.
const WIDTH_FOR_RATE: u16 = 110;

impl LiveView {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be taken; it is then as it was.
    pub fn open() -> Result<LiveView, Error> {
        TakenScreen::take().map(LiveView)
    }

    /// Draws the run as it is. A terminal that has gone is not missed: the run goes on.
    pub fn draw(&mut self, title: &Title, seen: &Snapshot, feed: &[NodeReport]) {
        let warnings = self.0.held.warnings();
        draw(&mut self.0.terminal, title, seen, feed, &warnings);
    }
}

/// One picture of a run.
fn draw<B: Backend>(
    terminal: &mut Terminal<B>,
    title: &Title,
    seen: &Snapshot,
    feed: &[NodeReport],
    warnings: &[String],
) {
    let _ = terminal.draw(|frame| {
        let area = frame.area();
        let width = usize::from(area.width);
        let progress = progress(title, seen, feed, width);
        if area.width < SIZE_MIN.0 || area.height < SIZE_MIN.1 {
            let (width, height) = SIZE_MIN;
            let text = format!("{progress}\nthe view needs {width}x{height} characters");
            frame.render_widget(Paragraph::new(text), area);
            return;
        }
        let has_feed = area.width >= SIZE_FOR_FEED.0 && area.height >= SIZE_FOR_FEED.1;
        let rows = Layout::vertical([
            Constraint::Length(2),
            Constraint::Fill(1),
            // The header and the last three epochs, or a framed box beside the feed.
            Constraint::Length(if has_feed { 9 } else { 4 }),
            Constraint::Length(u16::from(!warnings.is_empty())),
            Constraint::Length(1),
        ]);
        let [head, curves, tables, warned, foot] = rows.areas(area);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let lines = vec![Line::styled(heading(title, seen, width), bold), Line::from(progress)];
        frame.render_widget(Paragraph::new(lines), head);

        let has_rate = area.width >= WIDTH_FOR_RATE;
        let widths =
            [Constraint::Fill(5), Constraint::Fill(5), Constraint::Fill(if has_rate { 4 } else { 0 })];
        let [loss, accuracy, rate] = Layout::horizontal(widths).areas(curves);
        plot_loss(seen).show(frame, loss);
        plot_accuracy(seen).show(frame, accuracy);
        if has_rate {
            let training = by_step(seen, |point| point.learning_rate);
            let name = "learning rate";
            Drawing { name, may_be_log: true, training, validation: Vec::new() }.show(frame, rate);
        }
        match has_feed {
            true => {
                let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
                let [left, right] = halves.areas(tables);
                draw_feed(frame, left, feed);
                let block = Block::bordered().title("epochs");
                let block = block.border_style(Style::new().fg(Color::DarkGray));
                draw_epochs(frame, block.inner(right), seen);
                frame.render_widget(block, right);
            }
            false => draw_epochs(frame, tables, seen),
        }
        if let Some(last) = warnings.last() {
            let others = match warnings.len() {
                1 => String::new(),
                n => format!(" ({} more, all of them after the view)", n - 1),
            };
            let room = width.saturating_sub("warning: ".len() + others.chars().count());
            let line = format!("warning: {}{others}", shorten(last, room));
            frame.render_widget(Paragraph::new(line).style(Style::new().fg(Color::Yellow)), warned);
        }
        let mut legend = vec![
            Span::styled("⠤ training", Style::new().fg(Color::Blue)),
            Span::styled("  ● validation", Style::new().fg(Color::Yellow)),
        ];
        let keys = match width < 72 {
            true => "  Ctrl-C: checkpoint and stop",
            false => "    Ctrl-C: write a checkpoint and stop",
        };
        legend.push(Span::styled(keys, Style::new().fg(Color::DarkGray)));
        frame.render_widget(Paragraph::new(Line::from(legend)), foot);
    });
}

/// What is trained, and how long the whole run will still take.
fn heading(title: &Title, seen: &Snapshot, width: usize) -> String {
    let epochs = f64::from(title.epochs.saturating_sub(seen.epoch));
    let steps =
        epochs * title.steps_per_epoch as f64 + title.steps_per_epoch.saturating_sub(seen.step) as f64;
    let left = match seen.phase == Phase::Training && seen.steps_per_second > 0.0 {
        true => format!("  {} left in all", clock(steps / seen.steps_per_second)),
        false => String::new(),
    };
    let name = shorten(&title.text, width.saturating_sub(left.len()));
    format!("{name}{left}")
}

/// Epoch, steps, loss, accuracy and rates, as much of it as has room.
fn progress(title: &Title, seen: &Snapshot, feed: &[NodeReport], width: usize) -> String {
    let starved = feed.iter().find(|node| node.name == "train").map_or(0.0, |node| node.starved);
    training(seen, title.epochs, title.steps_per_epoch, starved).line(width + 1)
}

fn by_step(seen: &Snapshot, pick: fn(&StepPoint) -> f64) -> Vec<(f64, f64)> {
    seen.points.iter().map(|point| (point.epoch, pick(point))).collect()
}

fn by_epoch(seen: &Snapshot, pick: fn(&EpochMetrics) -> Option<f64>) -> Vec<(f64, f64)> {
    seen.epochs.iter().filter_map(|metrics| Some((f64::from(metrics.epoch), pick(metrics)?))).collect()
}

fn plot_loss(seen: &Snapshot) -> Drawing {
    let (training, validation) = (by_step(seen, |point| point.loss), by_epoch(seen, |e| e.validation_loss));
    Drawing { name: "loss", may_be_log: true, training, validation }
}

fn plot_accuracy(seen: &Snapshot) -> Drawing {
    let training = by_step(seen, |point| 100.0 * point.accuracy);
    let validation = by_epoch(seen, |e| e.validation_accuracy.map(|share| 100.0 * share));
    Drawing { name: "accuracy %", may_be_log: false, training, validation }
}

/// One bar per stage, of four shades, so that it is read without colors too.
fn draw_feed(frame: &mut ratatui::Frame<'_>, area: Rect, feed: &[NodeReport]) {
    let width = usize::from(area.width.saturating_sub(2 + 9 + 14));
    let shown = usize::from(area.height.saturating_sub(2));
    // The end of the feed is nearest to the trainer, so that of too many stages the first are left out.
    let stages: Vec<&NodeReport> =
        feed.iter().filter(|node| node.slot_seconds > 0.0 && node.name != "evaluate").collect();
    let lines: Vec<Line<'_>> = stages[stages.len().saturating_sub(shown)..]
        .iter()
        .map(|node| {
            let mut spans = vec![Span::from(format!("{:<9}", node.name.chars().take(8).collect::<String>()))];
            let mut left = width;
            for (share, shade, color) in [
                (node.busy, "█", Color::Green),
                (node.contended, "▓", Color::Yellow),
                (node.blocked, "▒", Color::DarkGray),
            ] {
                let cells = ((share * width as f64).round() as usize).min(left);
                left -= cells;
                spans.push(Span::styled(shade.repeat(cells), Style::new().fg(color)));
            }
            spans.push(Span::from("·".repeat(left)));
            spans.push(Span::from(format!(" starved {:>3.0} %", node.starved * 100.0)));
            Line::from(spans)
        })
        .collect();
    let block = Block::bordered().title("feed").border_style(Style::new().fg(Color::DarkGray));
    let block = block.title_bottom("█ busy ▓ contended ▒ blocked · starved");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A column of the table of epochs: its heading, its width, and what stands in it.
type EpochColumn = (&'static str, u16, fn(&EpochMetrics) -> String);

/// In the order in which they stand; the number says which are left out first.
const EPOCH_COLUMNS: [(u8, EpochColumn); 6] = [
    (0, ("epoch", 5, |epoch| epoch.epoch.to_string())),
    (4, ("loss", 8, |epoch| format!("{:.4}", epoch.train_loss))),
    (2, ("accuracy", 8, |epoch| percent(Some(epoch.train_accuracy)))),
    (3, ("val loss", 8, |epoch| epoch.validation_loss.map_or("-".to_string(), |loss| format!("{loss:.4}")))),
    (1, ("val acc", 8, |epoch| percent(epoch.validation_accuracy))),
    (5, ("speed", 15, |epoch| epoch.speed.to_string())),
];

fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_string(), |share| format!("{:.1} %", share * 100.0))
}

fn draw_epochs(frame: &mut ratatui::Frame<'_>, area: Rect, seen: &Snapshot) {
    let mut columns: Vec<&(u8, EpochColumn)> = EPOCH_COLUMNS.iter().collect();
    while columns.iter().map(|(_, (_, width, _))| width + 1).sum::<u16>() > area.width + 1 {
        let least = columns.iter().enumerate().max_by_key(|(_, (rank, _))| *rank);
        let Some((index, _)) = least else { break };
        columns.remove(index);
    }
    let shown = usize::from(area.height.saturating_sub(1));
    let rows = seen.epochs[seen.epochs.len().saturating_sub(shown)..].iter();
    let rows = rows.map(|epoch| Row::new(columns.iter().map(|(_, (_, _, cell))| cell(epoch))));
    let widths = columns.iter().map(|(_, (_, width, _))| Constraint::Length(*width));
    let header = Row::new(columns.iter().map(|(_, (name, _, _))| *name));
    let table = Table::new(rows, widths).header(header.style(Style::new().add_modifier(Modifier::BOLD)));
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::super::progress::Live;
    use super::super::run::Speed;
    use super::*;
    use crate::flow::Verb;

    fn picture(width: u16, height: u16, epochs: u32, warnings: &[String]) -> String {
        let live = Live::default();
        let mut seen = live.seen().clone();
        (seen.phase, seen.epoch, seen.step, seen.loss) = (Phase::Training, epochs + 1, 3, 0.25);
        seen.points = (0..epochs * 10)
            .map(|step| StepPoint {
                step: u64::from(step),
                epoch: f64::from(step) / 10.0,
                loss: if step == 7 { 60.0 } else { 1.0 - 0.01 * f64::from(step % 50) },
                accuracy: f64::from(step % 7) / 10.0,
                learning_rate: 1e-3,
                speed: Speed::Images(10.0),
            })
            .collect();
        seen.epochs = (1..=epochs)
            .map(|epoch| EpochMetrics {
                epoch,
                steps: u64::from(epoch) * 10,
                learning_rate: 1e-3,
                train_loss: 0.5,
                train_accuracy: 0.75,
                validation_loss: None,
                validation_accuracy: Some(0.875),
                validation_macro_f1: None,
                epochs_without_improvement: 0,
                seconds: 1.0,
                speed: Speed::CachedFeatures(320.0),
            })
            .collect();
        let title = Title { text: "small on shards, into run".into(), epochs: 9, steps_per_epoch: 10 };
        let node = |name| NodeReport {
            name,
            verb: Verb::Compute,
            items_in: 1,
            items_out: 1,
            samples: 1,
            slot_seconds: 1.0,
            busy: 0.5,
            contended: 0.0,
            blocked: 0.0,
            starved: 0.5,
            peak_items: 1,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        draw(&mut terminal, &title, &seen, &[node("decode"), node("train")], warnings);
        terminal.backend().to_string()
    }

    #[test]
    fn nothing_of_the_view_is_cut_at_any_size() {
        let warning = ["the feed is slow".to_string(), "x".repeat(300)];
        for (width, height) in [(60, 15), (60, 20), (80, 24), (79, 50), (110, 22), (200, 15), (200, 50)] {
            for epochs in [0, 1, 4, 30] {
                let shown = picture(width, height, epochs, &warning);
                let mut words = vec!["small on shards, into run", "Ctrl-C: ", "loss", "accuracy %", "epoch"];
                words.extend([
                    "● validation",
                    "⠤ training",
                    "val acc",
                    "(1 more, all of them after the view)",
                ]);
                match (width, height) {
                    (80.., 22..) => words.extend(["starved  50 %", "contended ▒ blocked · starved"]),
                    _ => words.push("speed"),
                }
                if width >= 110 {
                    words.push("learning rate");
                }
                if epochs > 0 {
                    words.push("87.5 %");
                }
                for word in words {
                    assert!(shown.contains(word), "{word} at {width}x{height} in\n{shown}");
                }
            }
        }
        for (width, height) in [(1, 1), (20, 5), (61, 17), (400, 100)] {
            picture(width, height, 30, &[]);
        }
        assert!(picture(40, 10, 1, &[]).contains("the view needs 60x15"));
        assert!(picture(120, 30, 0, &[]).contains("no point yet"));
    }

    #[test]
    fn the_axes_have_names_and_round_ticks_and_an_outlier_flattens_nothing() {
        for (width, height) in [(60, 15), (80, 24), (200, 50)] {
            let shown = picture(width, height, 4, &[]);
            let ticks = ["0.8┤", "0┤", "epoch┘", "loss (1 higher, up to 60)", "accuracy %"];
            for text in ticks {
                assert!(shown.contains(text), "{text} at {width}x{height} in\n{shown}");
            }
        }
    }
}
