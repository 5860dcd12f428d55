//! One HTML page per run: curves, the per-class table, the confusion matrix. It needs no network and no script.

use std::fmt::Write as _;

use crate::train::{TrainPlan, Trained};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e3e8ee; }
th:first-child, td:first-child { text-align: left; }
.matrix td { text-align: center; border: 1px solid #fff; min-width: 2.2rem; }
.big { font-size: 2.4rem; font-weight: 600; } .muted { color: #66788a; }
svg { width: 100%; height: auto; } pre { background: #f4f6f8; padding: 1rem; overflow-x: auto; }
";

/// Text as HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The report of a training run.
pub fn train(plan: &TrainPlan, done: &Trained) -> String {
    let mut page = String::new();
    let title = format!("{} on {}", plan.options.model, plan.feed.store.location());
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(&title)
    );
    let _ = writeln!(
        page,
        "<p><span class=\"big\">{:.2} %</span> accuracy on the {} split, macro F1 {:.4}<br><span class=\"muted\">best checkpoint: epoch {} of {}; the train thread waited for batches {:.0} % of its time</span></p>",
        done.accuracy * 100.0,
        done.split,
        done.macro_f1,
        done.best_epoch,
        done.epochs.len(),
        done.starved * 100.0
    );
    let epochs = &done.epochs;
    let series =
        |pick: &dyn Fn(usize) -> Option<f64>| (0..epochs.len()).filter_map(pick).collect::<Vec<f64>>();
    page += "<h2>Loss</h2>\n";
    page += &curves(&[
        ("train", "#2a6fdb", series(&|i| Some(epochs[i].train_loss))),
        ("validation", "#e0702c", series(&|i| epochs[i].validation_loss)),
    ]);
    page += "<h2>Accuracy</h2>\n";
    page += &curves(&[
        ("train", "#2a6fdb", series(&|i| Some(epochs[i].train_accuracy))),
        ("validation", "#e0702c", series(&|i| epochs[i].validation_accuracy)),
    ]);
    page += "<h2>Classes</h2>\n<table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>support</th></tr>\n";
    for row in &done.classes {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{}</td></tr>",
            escape(&row.class),
            row.precision,
            row.recall,
            row.f1,
            row.support
        );
    }
    page += "</table>\n";
    if done.classes.len() <= 50 {
        page += &matrix(done);
    }
    let _ = writeln!(page, "<h2>Run file</h2>\n<pre>{}</pre>\n</body></html>", escape(&plan.run_file));
    page
}

/// Rows are true classes, columns predictions; a cell is as dark as its share of its row.
fn matrix(done: &Trained) -> String {
    let mut text = String::from(
        "<h2>Confusion matrix</h2>\n<p class=\"muted\">rows: true class, columns: prediction</p>\n<table class=\"matrix\"><tr><th></th>",
    );
    for row in &done.classes {
        let _ = write!(text, "<th>{}</th>", escape(&row.class));
    }
    text += "</tr>\n";
    for (row, counts) in done.classes.iter().zip(&done.confusion) {
        let total = counts.iter().sum::<u64>().max(1);
        let _ = write!(text, "<tr><th>{}</th>", escape(&row.class));
        for count in counts {
            let share = *count as f64 / total as f64;
            let ink = if share > 0.5 { "#fff" } else { "#1c2733" };
            let _ =
                write!(text, "<td style=\"background:rgba(42,111,219,{share:.3});color:{ink}\">{count}</td>");
        }
        text += "</tr>\n";
    }
    text + "</table>\n"
}

/// Line plots over epochs, with a scale on the left.
fn curves(series: &[(&str, &str, Vec<f64>)]) -> String {
    let (width, height, left, bottom) = (800.0, 260.0, 60.0, 30.0);
    let values = || series.iter().flat_map(|(_, _, values)| values.iter().copied()).filter(|v| v.is_finite());
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if !low.is_finite() {
        return "<p class=\"muted\">nothing to plot</p>\n".to_string();
    }
    let (low, high) = if high - low < 1e-9 { (low - 0.5, high + 0.5) } else { (low, high) };
    let steps = series.iter().map(|(_, _, values)| values.len()).max().unwrap_or(1).max(2) - 1;
    let x = |index: usize| left + (width - left - 20.0) * index as f64 / steps as f64;
    let y = |value: f64| 15.0 + (height - bottom - 15.0) * (high - value) / (high - low);
    let mut svg = format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\">\n");
    for line in 0..=4 {
        let value = low + (high - low) * f64::from(line) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#e3e8ee\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"#66788a\">{value:.3}</text>",
            width - 20.0,
            y(value),
            left - 8.0,
            y(value) + 4.0
        );
    }
    for index in [0, steps] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"12\" fill=\"#66788a\">epoch {}</text>",
            x(index).clamp(left + 25.0, width - 40.0),
            height - 8.0,
            index + 1
        );
    }
    for (place, (name, color, values)) in
        series.iter().filter(|(_, _, values)| !values.is_empty()).enumerate()
    {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{:.1},{:.1}", x(index), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2.5\"/>",
            points.join(" ")
        );
        for (index, value) in values.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{color}\"/>",
                x(index),
                y(*value)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"12\" font-size=\"13\" fill=\"{color}\">{name}</text>",
            left + 10.0 + 80.0 * place as f64
        );
    }
    svg + "</svg>\n"
}
