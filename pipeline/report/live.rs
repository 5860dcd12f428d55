//! The live view of a training run: curves, learning rate, the state of the feed and the recent epochs, drawn in
//! the terminal until the run ends or someone stops it.
//!
//! It draws on stderr, as the progress bar does, on the alternate screen, and gives the terminal back however the
//! run ends: the guard is dropped on success, error and panic alike, and the first signal ends the view, not only
//! the run, so that a second signal, which ends the process at once, finds the terminal as it was.

use std::io::{Stderr, Write};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};

use super::bar::clock;
use super::curves::{number, thinned};
use crate::flow::Error;
use crate::flow::NodeReport;

use super::progress::{Phase, Snapshot};
use super::reporter::HeldScreen;

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

/// The terminal while the view has it; what is said meanwhile is held until it is given back.
pub struct LiveView {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    /// Ends after the terminal is given back.
    _hold: HeldScreen,
}

/// Shortest and lowest terminal in which there is something to see; below, the view says so.
const SIZE_MIN: (u16, u16) = (60, 16);

/// The most points of a curve: two per column of a wide terminal.
const POINTS_MAX: usize = 400;

impl LiveView {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be taken; it is then as it was.
    pub fn open() -> Result<LiveView, Error> {
        let failed = |error| {
            give_back();
            Error::failed("draw on the terminal; leave out --live", error)
        };
        terminal::enable_raw_mode().map_err(failed)?;
        execute!(std::io::stderr(), terminal::EnterAlternateScreen, cursor::Hide).map_err(failed)?;
        let terminal = Terminal::new(CrosstermBackend::new(std::io::stderr())).map_err(failed)?;
        Ok(LiveView { terminal, _hold: HeldScreen::begin() })
    }

    /// Draws the run as it is. A terminal that has gone is not missed: the run goes on.
    pub fn draw(&mut self, title: &Title, seen: &Snapshot, feed: &[NodeReport]) {
        draw(&mut self.terminal, title, seen, feed);
    }

    /// Whether someone asked to stop since the last call: `q`, Escape or Ctrl-C.
    pub fn asked_to_stop(&self) -> bool {
        let mut asked = false;
        while event::poll(Duration::ZERO).unwrap_or(false) {
            let Ok(Event::Key(key)) = event::read() else { continue };
            let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
            asked |= key.kind != KeyEventKind::Release
                && match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => true,
                    KeyCode::Char('c') => is_control,
                    _ => false,
                };
        }
        asked
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        give_back();
    }
}

/// Leaves the terminal as it was found; what fails of it cannot be helped.
fn give_back() {
    let mut out = std::io::stderr();
    let _ = execute!(out, terminal::LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
    let _ = out.flush();
}

/// One picture of a run.
fn draw<B: Backend>(terminal: &mut Terminal<B>, title: &Title, seen: &Snapshot, feed: &[NodeReport]) {
    let _ = terminal.draw(|frame| {
        let area = frame.area();
        if area.width < SIZE_MIN.0 || area.height < SIZE_MIN.1 {
            let (width, height) = SIZE_MIN;
            let text = format!("{}\nthe view needs {width}x{height} characters", progress(title, seen));
            frame.render_widget(Paragraph::new(text), area);
            return;
        }
        let rows = Layout::vertical([
            Constraint::Length(2),
            Constraint::Fill(1),
            Constraint::Length(9),
            Constraint::Length(1),
        ]);
        let [head, curves, tables, foot] = rows.areas(area);
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let lines = vec![Line::styled(title.text.clone(), bold), Line::from(progress(title, seen))];
        frame.render_widget(Paragraph::new(lines), head);

        let [loss, accuracy, rate] =
            Layout::horizontal([Constraint::Fill(5), Constraint::Fill(5), Constraint::Fill(3)]).areas(curves);
        let points = |pick: fn(&super::run::StepPoint) -> f64| -> Vec<(f64, f64)> {
            seen.points.iter().map(|point| (point.epoch, pick(point))).collect()
        };
        let epochs = |pick: fn(&super::run::EpochMetrics) -> Option<f64>| -> Vec<(f64, f64)> {
            seen.epochs.iter().filter_map(|e| Some((f64::from(e.epoch), pick(e)?))).collect()
        };
        plot(frame, loss, "loss", points(|p| p.loss), epochs(|e| e.validation_loss));
        plot(frame, accuracy, "accuracy", points(|p| p.accuracy), epochs(|e| e.validation_accuracy));
        plot(frame, rate, "learning rate", points(|p| p.learning_rate), Vec::new());

        let [feed_area, epoch_area] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(tables);
        draw_feed(frame, feed_area, feed);
        draw_epochs(frame, epoch_area, seen);
        let keys = "training blue, validation yellow      q: write a checkpoint and stop";
        frame.render_widget(Paragraph::new(keys).style(Style::new().fg(Color::DarkGray)), foot);
    });
}

/// Epoch, steps, loss, accuracy, rates and the time that is left, in a line.
fn progress(title: &Title, seen: &Snapshot) -> String {
    let mut text = format!("{} epoch {}/{}", seen.phase.name(), seen.epoch, title.epochs);
    if seen.phase == Phase::Training {
        text += &format!(
            " step {}/{}  loss {:.4}  accuracy {:.1} %  lr {:.2e}  {:.0} images/s",
            seen.step,
            title.steps_per_epoch,
            seen.loss,
            seen.accuracy * 100.0,
            seen.learning_rate,
            seen.images_per_second
        );
        if seen.steps_per_second > 0.0 {
            let epochs = f64::from(title.epochs.saturating_sub(seen.epoch));
            let steps = epochs * title.steps_per_epoch as f64
                + title.steps_per_epoch.saturating_sub(seen.step) as f64;
            text += &format!("  {} left", clock(steps / seen.steps_per_second));
        }
    }
    text
}

fn plot(
    frame: &mut ratatui::Frame<'_>,
    area: Rect,
    name: &'static str,
    training: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
) {
    let (training, validation) = (thinned(&training, POINTS_MAX), thinned(&validation, POINTS_MAX));
    let block = Block::bordered().title(name).border_style(Style::new().fg(Color::DarkGray));
    let bounds = |pick: fn(&(f64, f64)) -> f64| {
        let values = || training.iter().chain(&validation).map(pick);
        let low = values().fold(f64::INFINITY, f64::min);
        let high = values().fold(f64::NEG_INFINITY, f64::max);
        if high > low {
            [low, high]
        } else {
            [low - 0.5 * low.abs().max(1e-6), high + 0.5 * high.abs().max(1e-6)]
        }
    };
    if training.is_empty() && validation.is_empty() {
        frame.render_widget(Paragraph::new("no point yet").block(block), area);
        return;
    }
    let (x, y) = (bounds(|point| point.0), bounds(|point| point.1));
    let line = |points, color| {
        let line = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line);
        line.style(Style::new().fg(color)).data(points)
    };
    let grey = Style::new().fg(Color::DarkGray);
    let chart = Chart::new(vec![line(&training, Color::Blue), line(&validation, Color::Yellow)])
        .block(block)
        .x_axis(Axis::default().style(grey).bounds(x).labels([number(x[0]), number(x[1])]))
        .y_axis(Axis::default().style(grey).bounds(y).labels([number(y[0]), number(y[1])]));
    frame.render_widget(chart, area);
}

/// One bar per stage: busy, waiting for a core, blocked by what follows; what is left is starved.
fn draw_feed(frame: &mut ratatui::Frame<'_>, area: Rect, feed: &[NodeReport]) {
    let width = usize::from(area.width.saturating_sub(2 + 9 + 15));
    let shown = usize::from(area.height.saturating_sub(2));
    // The end of the feed is nearest to the trainer, so that of too many stages the first are left out.
    let stages: Vec<&NodeReport> =
        feed.iter().filter(|node| node.slot_seconds > 0.0 && node.name != "evaluate").collect();
    let lines: Vec<Line<'_>> = stages[stages.len().saturating_sub(shown)..]
        .iter()
        .map(|node| {
            let cells = |share: f64| "█".repeat((share * width as f64).round() as usize);
            let mut spans = vec![Span::from(format!("{:<9}", node.name.chars().take(8).collect::<String>()))];
            for (share, color) in
                [(node.busy, Color::Green), (node.contended, Color::Yellow), (node.blocked, Color::DarkGray)]
            {
                spans.push(Span::styled(cells(share), Style::new().fg(color)));
            }
            let used: usize = spans[1..].iter().map(|span| span.content.chars().count()).sum();
            spans.push(Span::from("·".repeat(width.saturating_sub(used))));
            spans.push(Span::from(format!(" starved {:>3.0} %", node.starved * 100.0)));
            Line::from(spans)
        })
        .collect();
    let block = Block::bordered().title("feed: busy █ green, waits for a core █ yellow, blocked █ grey");
    let block = block.border_style(Style::new().fg(Color::DarkGray));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_epochs(frame: &mut ratatui::Frame<'_>, area: Rect, seen: &Snapshot) {
    let shown = usize::from(area.height.saturating_sub(3));
    let optional = |value: Option<f64>, text: fn(f64) -> String| value.map_or("-".to_string(), text);
    let rows = seen.epochs[seen.epochs.len().saturating_sub(shown)..].iter().map(|metrics| {
        Row::new([
            metrics.epoch.to_string(),
            format!("{:.4}", metrics.train_loss),
            format!("{:.1} %", metrics.train_accuracy * 100.0),
            optional(metrics.validation_loss, |loss| format!("{loss:.4}")),
            optional(metrics.validation_accuracy, |share| format!("{:.1} %", share * 100.0)),
            format!("{:.0}", metrics.images_per_second),
        ])
    });
    let widths = [
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ];
    let header = Row::new(["epoch", "loss", "accuracy", "val loss", "val acc", "images/s"]);
    let block = Block::bordered().title("epochs").border_style(Style::new().fg(Color::DarkGray));
    let table = Table::new(rows, widths).header(header.style(Style::new().add_modifier(Modifier::BOLD)));
    frame.render_widget(table.block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::super::progress::Live;
    use super::super::run::{EpochMetrics, StepPoint};
    use super::*;

    fn picture(width: u16, height: u16, epochs: u32) -> String {
        let live = Live::default();
        let mut seen = live.seen().clone();
        (seen.phase, seen.epoch, seen.step, seen.loss) = (Phase::Training, epochs + 1, 3, 0.25);
        seen.points = (0..epochs * 10)
            .map(|step| StepPoint {
                step: u64::from(step),
                epoch: f64::from(step) / 10.0,
                loss: 1.0 / f64::from(step + 1),
                accuracy: 0.5,
                learning_rate: 1e-3,
                images_per_second: 10.0,
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
                images_per_second: 320.0,
            })
            .collect();
        let title = Title { text: "small on shards".into(), epochs: 9, steps_per_epoch: 10 };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        draw(&mut terminal, &title, &seen, &[]);
        terminal.backend().to_string()
    }

    #[test]
    fn the_view_shows_the_run_at_every_size_and_at_its_very_beginning() {
        let shown = picture(120, 30, 4);
        for text in ["small on shards", "epoch 5/9 step 3/10", "loss 0.2500", "87.5 %", "feed", "epochs"] {
            assert!(shown.contains(text), "{text} in\n{shown}");
        }
        assert!(picture(120, 30, 0).contains("no point yet"));
        for (width, height) in [(1, 1), (20, 5), (60, 16), (61, 17), (400, 100)] {
            picture(width, height, 30);
        }
        assert!(picture(40, 10, 1).contains("the view needs 60x16"));
    }
}
