//! One HTML page per run: curves, the per-class table, the confusion matrix. It needs no network and no script.

use std::fmt::Write as _;

use forebay_datasets::escape;

use super::run::{RunFacts, Trained};

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

/// The report of a training run, with its curves as SVG.
pub fn train(facts: &RunFacts, done: &Trained, curves: &[String]) -> String {
    let mut page = String::new();
    let title = format!("{} on {}", facts.model, facts.source);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape::html(&title)
    );
    let _ = writeln!(
        page,
        "<p><span class=\"big\">{:.2} %</span> accuracy on the {} split, macro F1 {:.4}<br><span class=\"muted\">best checkpoint: epoch {} of {}{}; the train thread waited for batches {:.0} % of its time</span></p>",
        done.accuracy * 100.0,
        done.split,
        done.macro_f1,
        done.best_epoch,
        done.epochs.len(),
        if done.stopped_early { ", where the run was stopped early" } else { "" },
        done.starved * 100.0
    );
    page += "<h2>Curves</h2>\n";
    curves.iter().for_each(|curve| page += curve);
    page += "<h2>Classes</h2>\n<table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>support</th></tr>\n";
    for row in &done.classes {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{}</td></tr>",
            escape::html(&row.class),
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
    // It has lines of its own.
    let run_file: Vec<String> = facts.run_file.lines().map(escape::html).collect();
    let run_file = run_file.join("\n");
    let _ = writeln!(page, "<h2>Run file</h2>\n<pre>{}</pre>\n</body></html>", run_file);
    page
}

/// Rows are true classes, columns predictions; a cell is as dark as its share of its row.
fn matrix(done: &Trained) -> String {
    let mut text = String::from(
        "<h2>Confusion matrix</h2>\n<p class=\"muted\">rows: true class, columns: prediction</p>\n<table class=\"matrix\"><tr><th></th>",
    );
    for row in &done.classes {
        let _ = write!(text, "<th>{}</th>", escape::html(&row.class));
    }
    text += "</tr>\n";
    for (row, counts) in done.classes.iter().zip(&done.confusion) {
        let total = counts.iter().sum::<u64>().max(1);
        let _ = write!(text, "<tr><th>{}</th>", escape::html(&row.class));
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
