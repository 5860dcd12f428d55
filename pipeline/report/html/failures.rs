//! Where a classifier fails: the confusion matrix with the images behind its cells, the mistakes of most confidence, the
//! right answers of least, and labels that are probably wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_train::metrics::Evaluation;

use super::answers::{Cell, ScoredAnswers};
use super::gallery::Thumbnails;
use super::shell::{head, table};

/// Classes of which the whole matrix is shown.
pub(super) const MATRIX_MAX: usize = 50;

/// Classes whose cells have room for a share beside the count.
const SHARES_MAX: usize = 12;

/// Classes whose cells are as large as a finger.
const LARGE_CELLS_MAX: usize = 25;

/// Rows of the table of confused pairs.
const PAIRS_MAX: usize = 50;

/// Of few images a share says nothing.
const SUPPORT_MIN: u64 = 5;

/// What is confused most and found least, in a few lines.
pub(super) fn in_short(evaluation: &Evaluation) -> String {
    let pairs = confused(evaluation);
    if pairs.is_empty() {
        return "<p>No image was taken for another class.</p>\n".to_string();
    }
    let name = |class: usize| escape::html(&evaluation.classes[class]);
    let mut text = String::from("<p>Most often confused: ");
    let first: Vec<String> = pairs
        .iter()
        .take(3)
        .map(|(truth, prediction, count)| {
            format!(
                "“{}” taken for “{}” ({count} of {})",
                name(*truth),
                name(*prediction),
                support(evaluation, *truth)
            )
        })
        .collect();
    text += &first.join(", ");
    let mut worst: Vec<&forebay_train::metrics::ClassFigures> =
        evaluation.per_class.iter().filter(|class| class.support >= SUPPORT_MIN).collect();
    worst.sort_by(|a, b| a.recall.value.total_cmp(&b.recall.value));
    if worst.len() > 2 {
        let worst: Vec<String> = worst
            .iter()
            .take(3)
            .map(|class| format!("“{}” ({:.1} %)", escape::html(&class.class), class.recall.value * 100.0))
            .collect();
        let _ = write!(text, ". Found least: {}", worst.join(", "));
    }
    text + ".</p>\n"
}

fn support(evaluation: &Evaluation, truth: usize) -> u64 {
    evaluation.confusion[truth].iter().sum()
}

/// (truth, prediction, count) of mistakes, the most frequent first.
pub(crate) fn confused(evaluation: &Evaluation) -> Vec<(usize, usize, u64)> {
    let rows = evaluation.confusion.iter().enumerate();
    let mut pairs: Vec<(usize, usize, u64)> = rows
        .flat_map(|(truth, row)| {
            row.iter().enumerate().map(move |(prediction, count)| (truth, prediction, *count))
        })
        .filter(|(truth, prediction, count)| truth != prediction && *count > 0)
        .collect();
    pairs.sort_by_key(|(truth, prediction, count)| (std::cmp::Reverse(*count), *truth, *prediction));
    pairs
}

/// The confusion matrix, or of many classes the pairs that are confused most; a cell leads to its images where `cells` has
/// them.
pub(super) fn matrix(evaluation: &Evaluation, cells: &[Cell]) -> String {
    let shown: BTreeSet<(u32, u32)> = cells.iter().map(|(cell, _)| *cell).collect();
    match evaluation.classes.len() <= MATRIX_MAX {
        true => whole(evaluation, &shown),
        false => pairs(evaluation, &shown),
    }
}

fn whole(evaluation: &Evaluation, shown: &BTreeSet<(u32, u32)>) -> String {
    let classes = &evaluation.classes;
    let is_few = classes.len() <= SHARES_MAX;
    let mut names = String::from("<td></td>");
    for class in classes {
        let class = escape::html(class);
        let _ = write!(names, "<th scope=\"col\" title=\"{class}\"><span>{class}</span></th>");
    }
    let mut rows = String::new();
    for (truth, counts) in evaluation.confusion.iter().enumerate() {
        let total = counts.iter().sum::<u64>().max(1);
        let name = escape::html(&classes[truth]);
        let _ = write!(rows, "<tr><th scope=\"row\" title=\"{name}\">{name}</th>");
        for (prediction, count) in counts.iter().enumerate() {
            let share = *count as f64 / total as f64;
            let is_shown = shown.contains(&(truth as u32, prediction as u32));
            let words = format!(
                "{count} of {total} “{name}” ({:.1} %) taken for “{}”",
                share * 100.0,
                escape::html(&classes[prediction])
            );
            let beside =
                if is_few { format!("<small>{:.1} %</small>", share * 100.0) } else { String::new() };
            // The ink stays readable on a share of 1.
            let class = if truth == prediction { "h" } else { "m" };
            let _ = match (count, is_shown) {
                (0, _) => write!(rows, "<td></td>"),
                (_, true) => write!(
                    rows,
                    "<td class=\"{class}\" style=\"--p:{:.3}\"><a href=\"#cell-{truth}-{prediction}\" title=\"{words}\">{count}{beside}</a></td>",
                    0.07 + 0.48 * share
                ),
                (_, false) => write!(
                    rows,
                    "<td class=\"{class}\" style=\"--p:{:.3}\"><span title=\"{words}\">{count}{beside}</span></td>",
                    0.07 + 0.48 * share
                ),
            };
        }
        rows += "</tr>\n";
    }
    let more = if shown.is_empty() { "" } else { "; a cell opens the images behind it" };
    let caption = format!("Rows are true classes, columns predictions, colour the share of the row{more}");
    let class = match classes.len() {
        0..=SHARES_MAX => "matrix few",
        n if n <= LARGE_CELLS_MAX => "matrix",
        _ => "matrix many",
    };
    table(&caption, class, &names, &rows)
}

fn pairs(evaluation: &Evaluation, shown: &BTreeSet<(u32, u32)>) -> String {
    let mut rows = String::new();
    let pairs = confused(evaluation);
    for (truth, prediction, count) in pairs.iter().take(PAIRS_MAX) {
        let total = support(evaluation, *truth).max(1);
        let link = match shown.contains(&(*truth as u32, *prediction as u32)) {
            true => format!("<a href=\"#cell-{truth}-{prediction}\">{count}</a>"),
            false => count.to_string(),
        };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td data-v=\"{count}\">{link}</td><td>{total}</td><td data-v=\"{2:.6}\">{3:.1} %</td></tr>",
            escape::html(&evaluation.classes[*truth]),
            escape::html(&evaluation.classes[*prediction]),
            *count as f64 / total as f64,
            100.0 * *count as f64 / total as f64
        );
    }
    let caption = format!(
        "The {} pairs that are confused most, of {} that are; with {} classes no matrix would be readable",
        pairs.len().min(PAIRS_MAX),
        pairs.len(),
        evaluation.classes.len()
    );
    table(&caption, "sort", &head(&["true class", "taken for", "images", "of the class", "share"]), &rows)
}

/// The images behind the cells: one cell is open at a time, the most frequent mistake at first.
pub(super) fn cells(
    answers: &ScoredAnswers<'_>,
    cells: &[Cell],
    per_cell: usize,
    thumbnails: &Thumbnails<'_>,
) -> String {
    if cells.is_empty() || per_cell == 0 {
        return String::new();
    }
    let mut text = String::from("<div class=\"cells\">\n");
    for ((truth, prediction), members) in cells {
        let (of, taken) = (escape::html(answers.class(*truth)), escape::html(answers.class(*prediction)));
        let heading = match truth == prediction {
            true => format!("“{of}”, found"),
            false => format!("“{of}” taken for “{taken}”"),
        };
        let more = match members.len() > per_cell {
            true => format!("{} images, the {per_cell} of most confidence", members.len()),
            false => format!("{} image{}", members.len(), if members.len() == 1 { "" } else { "s" }),
        };
        let items: String = members
            .iter()
            .take(per_cell)
            .map(|index| {
                let id = &answers.scored.ids()[*index];
                format!(
                    "<li>{}<span class=\"w\">{:.1} %</span>{}</li>\n",
                    thumbnails.image(id),
                    answers.confidence(*index) * 100.0,
                    escape::html(id)
                )
            })
            .collect();
        let _ = write!(
            text,
            "<div id=\"cell-{truth}-{prediction}\"><h3>{heading}</h3><p class=\"muted\">{more}</p>\n{}</div>\n",
            thumbnails.list("", &items)
        );
    }
    text + "</div>\n"
}

/// Images with what they are and what they were taken for.
fn list(answers: &ScoredAnswers<'_>, images: &[usize], thumbnails: &Thumbnails<'_>) -> String {
    let mut items = String::new();
    for index in images {
        let id = &answers.scored.ids()[*index];
        let (label, prediction) = (answers.label(*index), answers.prediction(*index));
        let what = match label == prediction {
            true => escape::html(answers.class(label)),
            false => format!(
                "{} → {}",
                escape::html(answers.class(label)),
                escape::html(answers.class(prediction))
            ),
        };
        let confidence = answers.confidence(*index) * 100.0;
        let of_label = match label == prediction {
            true => String::new(),
            false => format!(", true class {:.1} %", answers.of_label(*index) * 100.0),
        };
        let _ = writeln!(
            items,
            "<li>{}<strong>{what}</strong><span class=\"w\">{confidence:.1} %{of_label}</span><span class=\"w\">{}</span></li>",
            thumbnails.image(id),
            escape::html(id)
        );
    }
    thumbnails.list("", &items)
}

/// The wrong answers of most confidence.
pub(super) fn confident_mistakes(answers: &ScoredAnswers<'_>, thumbnails: &Thumbnails<'_>) -> String {
    match &answers.confident_mistakes()[..] {
        [] => "<p>There are none.</p>\n".to_string(),
        images => {
            "<p class=\"muted\">True class → prediction, and how probable the prediction seemed.</p>\n"
                .to_string()
                + &list(answers, images, thumbnails)
        }
    }
}

/// The right answers of least confidence.
pub(super) fn unsure_hits(answers: &ScoredAnswers<'_>, thumbnails: &Thumbnails<'_>) -> String {
    match &answers.unsure_hits()[..] {
        [] => "<p>No answer was right.</p>\n".to_string(),
        images => {
            "<p class=\"muted\">Right, but hardly: what is like these is right by luck.</p>\n".to_string()
                + &list(answers, images, thumbnails)
        }
    }
}

/// Labels that are probably wrong, and how to mend them.
pub(super) fn suspects(answers: &ScoredAnswers<'_>, thumbnails: &Thumbnails<'_>) -> String {
    let shown = answers.shown_suspects();
    if shown.is_empty() {
        return "<p>No label looks wrong.</p>\n".to_string();
    }
    let mut text = format!(
        "<p>By confident learning (Northcutt et al. 2021), {} of these {} labels look wrong; the most suspicious come first. \
         Nothing changes until you decide: <code>fixes.csv</code> holds them all with the action <code>keep</code>. Set \
         <code>relabel</code> (the class in <code>suggested</code>) or <code>drop</code>, and run \
         <code>forebay prepare SOURCE DEST --fixes fixes.csv</code>.</p>\n",
        answers.suspects.len(),
        answers.scored.len()
    );
    if shown.len() < answers.suspects.len() {
        let _ = writeln!(text, "<p class=\"muted\">Here are the first {}.</p>", shown.len());
    }
    text += "<p class=\"only-js\"><button type=\"button\" class=\"act\" id=\"save-fixes\">Save fixes.csv</button> \
             <span class=\"muted\" id=\"fixes-said\" role=\"status\"></span></p>\n";
    text += "<datalist id=\"class-names\">";
    for class in answers.scored.classes() {
        let _ = write!(text, "<option value=\"{}\"></option>", escape::html(class));
    }
    text += "</datalist>\n";
    let mut items = String::new();
    for suspect in shown {
        let (label, suggestion) = (answers.class(suspect.label), answers.class(suspect.suggestion));
        let (id, label, suggestion) =
            (escape::html(&suspect.id), escape::html(label), escape::html(suggestion));
        let _ = writeln!(
            items,
            "<li data-id=\"{id}\" data-label=\"{label}\" data-p=\"{0:.4}\" data-margin=\"{1:.4}\">{2}<strong>{label} → {suggestion}?</strong>\
             <span class=\"w\">{3:.1} %, margin {1:.2}</span><span class=\"w\">{id}</span>\
             <span class=\"only-js\"><select aria-label=\"what to do with {id}\"><option>keep</option><option>relabel</option><option>drop</option></select>\
             <input list=\"class-names\" aria-label=\"class of {id}\" value=\"{suggestion}\"></span></li>",
            suspect.probability,
            suspect.margin,
            thumbnails.image(&suspect.id),
            suspect.probability * 100.0
        );
    }
    text + &thumbnails.list("fixes", &items)
}
