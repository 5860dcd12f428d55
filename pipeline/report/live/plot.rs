//! A plot in a box of characters: a line for training, dots for validation, and round ticks on both sides.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Line as Stroke};
use ratatui::widgets::{Block, Paragraph};

use super::super::axis::{Division, PlotAxis, number};
use super::super::curves::thinned;

/// The most points of a curve: two per column of a wide terminal.
const POINTS_MAX: usize = 400;

/// What a box shows.
pub(super) struct Drawing {
    /// What is shown, with its unit.
    pub(super) name: &'static str,
    /// Whether it may be on a logarithmic scale.
    pub(super) may_be_log: bool,
    /// By epochs done.
    pub(super) training: Vec<(f64, f64)>,
    /// By epoch.
    pub(super) validation: Vec<(f64, f64)>,
}

impl Drawing {
    /// Draws it with a frame around it.
    pub(super) fn show(&self, frame: &mut Frame<'_>, area: Rect) {
        let (training, validation) =
            (thinned(&self.training, POINTS_MAX), thinned(&self.validation, POINTS_MAX));
        let all = || training.iter().chain(&validation);
        let grey = Style::new().fg(Color::DarkGray);
        let block = Block::bordered().border_style(grey).title_bottom(Line::from("epoch").right_aligned());
        let x = PlotAxis::of(all().map(|point| point.0), Division::Linear);
        let division = if self.may_be_log { Division::Fitting } else { Division::Robust };
        let y = PlotAxis::of(all().map(|point| point.1), division);
        let (Some(x), Some(y)) = (x, y) else {
            frame.render_widget(Paragraph::new("no point yet").block(block.title(self.name)), area);
            return;
        };
        let room = usize::from(area.width.saturating_sub(2));
        let title = format!("{}{}", self.name, y.remark());
        let title = if title.chars().count() <= room { title } else { format!("{} (clipped)", self.name) };
        let block = block.title(title);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let rows = usize::from(inner.height.saturating_sub(1));
        let y_ticks: Vec<(f64, String)> =
            y.ticks((rows / 2).clamp(2, 7)).into_iter().map(|tick| (tick, number(tick))).collect();
        let labels = y_ticks.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
        let columns = usize::from(inner.width).saturating_sub(labels + 1);
        if rows < 2 || columns < 4 {
            return;
        }
        let plot =
            Rect { x: inner.x + (labels + 1) as u16, y: inner.y, width: columns as u16, height: rows as u16 };
        for row in 0..rows {
            let tick = y_ticks.iter().find(|(tick, _)| place(1.0 - y.position(*tick), rows) == row);
            let text = match tick {
                Some((_, label)) => format!("{label:>labels$}┤"),
                None => format!("{:>labels$}│", ""),
            };
            let at = Rect { y: inner.y + row as u16, width: (labels + 1) as u16, height: 1, ..inner };
            frame.render_widget(Paragraph::new(text).style(grey), at);
        }
        let ticks = along(&x, labels + 1, columns, usize::from(inner.width));
        let below = Rect { y: inner.y + rows as u16, height: 1, ..inner };
        frame.render_widget(Paragraph::new(ticks).style(grey), below);
        let at = |point: &(f64, f64)| (x.position(point.0), y.position(point.1));
        let canvas = Canvas::default().marker(Marker::Braille).x_bounds([0.0, 1.0]).y_bounds([0.0, 1.0]);
        let canvas = canvas.paint(|context| {
            for pair in training.windows(2) {
                let ((x1, y1), (x2, y2)) = (at(&pair[0]), at(&pair[1]));
                context.draw(&Stroke { x1, y1, x2, y2, color: Color::Blue });
            }
            if let [alone] = &training[..] {
                context.print(at(alone).0, at(alone).1, Span::styled("⠶", Style::new().fg(Color::Blue)));
            }
            for (x, y) in validation.iter().map(at) {
                context.print(x, y, Span::styled("●", Style::new().fg(Color::Yellow)));
            }
        });
        frame.render_widget(canvas, plot);
    }
}

/// Which of so many cells a share of the way lies in.
fn place(share: f64, cells: usize) -> usize {
    (share * (cells - 1) as f64).round() as usize
}

/// The ticks below a plot that begins at column `left` and has so many columns, each label below its tick, in a line of
/// `width` characters.
fn along(axis: &PlotAxis, left: usize, columns: usize, width: usize) -> String {
    let mut line = String::new();
    for tick in axis.ticks((columns / 6).max(2)) {
        let label = number(tick);
        let middle = left + place(axis.position(tick), columns);
        let start = middle.saturating_sub(label.len() / 2).min(width.saturating_sub(label.len()));
        // A label that would touch the one before it is left out.
        if line.is_empty() || start > line.len() {
            line = format!("{line:<start$}{label}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stands_below_its_tick_and_within_the_line() {
        let axis = PlotAxis::of([0.0, 10.0].into_iter(), Division::Linear).unwrap();
        assert_eq!(along(&axis, 4, 41, 45), "    0       2       4       6       8      10");
        for columns in 4..80 {
            let line = along(&axis, 3, columns, columns + 3);
            assert!(line.len() <= columns + 3, "{line}");
        }
    }
}
