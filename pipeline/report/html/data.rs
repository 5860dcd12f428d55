//! A page about images before any model: sections of texts, bars, tables, charts and pictures, in the look of the other pages.

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_datasets::sample::SampleId;

use super::chart::{Chart, Side};
use super::gallery::{Gallery, Thumbnails};
use super::shell::{self, PageSection, bars, lines, page};
use super::{ReportPage, within};

/// A page about images. Everything in it is text, which the page escapes.
#[derive(Clone, Debug)]
pub struct DataPage<'a> {
    /// What it is of.
    pub title: &'a str,
    /// A sentence below the title.
    pub lead: &'a str,
    /// The figures at its head.
    pub tiles: &'a [DataTile],
    /// Its sections, in their order.
    pub sections: &'a [DataSection],
    /// The thumbnails of the pictures that its sections name.
    pub gallery: &'a Gallery,
}

/// A figure at the head of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataTile {
    /// What it is.
    pub name: &'static str,
    /// The figure.
    pub value: String,
    /// A remark below.
    pub note: String,
}

/// A section of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSection {
    /// What links to it.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What it holds.
    pub blocks: Vec<DataBlock>,
}

/// A part of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum DataBlock {
    /// A paragraph.
    Text(String),
    /// A list of sentences.
    List(Vec<String>),
    /// A command, as it is.
    Lines(String),
    /// Horizontal bars: a name, a value from 0 to 1, and how it reads.
    Bars {
        /// What they are of.
        label: &'static str,
        /// The bars.
        rows: Vec<(String, f64, String)>,
    },
    /// A table that can be sorted.
    Table {
        /// What it is of.
        caption: String,
        /// The heads of its columns.
        names: Vec<String>,
        /// Its rows.
        rows: Vec<Vec<String>>,
    },
    /// Drawings side by side, as SVG.
    Charts(Vec<DataBlock>),
    /// A drawing.
    Drawing(String),
    /// Images with what is said of each.
    Pictures {
        /// What they have in common.
        caption: String,
        /// The images.
        pictures: Vec<PagePicture>,
    },
}

/// An image of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePicture {
    /// The sample.
    pub id: SampleId,
    /// What stands below it.
    pub lines: Vec<String>,
}

impl DataBlock {
    /// How often values occur, in `n_bars` parts of their extent.
    pub fn histogram(title: &'static str, unit: &'static str, values: &[f64], n_bars: usize) -> DataBlock {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // All the same: one bar in the middle of an extent of its own.
        let (low, high) = if high > low { (low, high) } else { (low - 1.0, low + 1.0) };
        let step = (high - low) / n_bars as f64;
        let mut counts = vec![0u64; n_bars];
        for value in values.iter().filter(|value| value.is_finite()) {
            counts[(((value - low) / step) as usize).min(n_bars - 1)] += 1;
        }
        let most = counts.iter().copied().max().unwrap_or(0) as f64;
        let bar = |(at, count): (usize, &u64)| {
            let left = low + step * at as f64;
            [left + 0.06 * step, left + 0.94 * step, 0.0, *count as f64]
        };
        let boxes = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(bar).collect();
        let chart = Chart {
            title,
            x: Side { name: unit, low, high },
            y: Side { name: "images", low: 0.0, high: 1.05 * most },
            boxes,
            lines: Vec::new(),
        };
        DataBlock::Drawing(chart.svg())
    }

    fn html(&self, thumbnails: &Thumbnails<'_>) -> String {
        match self {
            DataBlock::Text(text) => format!("<p>{}</p>\n", escape::html(text)),
            DataBlock::List(items) => {
                let items: String =
                    items.iter().map(|item| format!("<li>{}</li>\n", escape::html(item))).collect();
                format!("<ul class=\"notes\">\n{items}</ul>\n")
            }
            DataBlock::Lines(text) => lines(text),
            DataBlock::Bars { label, rows } => bars(label, rows),
            DataBlock::Table { caption, names, rows } => table(caption, names, rows),
            DataBlock::Charts(charts) => {
                let charts: String = charts.iter().map(|chart| chart.html(thumbnails)).collect();
                format!("<div class=\"plots\">\n{charts}</div>\n")
            }
            DataBlock::Drawing(svg) => svg.clone(),
            DataBlock::Pictures { caption, pictures } => {
                let mut items = String::new();
                for PagePicture { id, lines } in pictures {
                    let lines: Vec<String> =
                        lines.iter().map(|line| escape::html(line).to_string()).collect();
                    let _ = writeln!(
                        items,
                        "<li>{}<span class=\"w\">{}</span></li>",
                        thumbnails.image(id),
                        lines.join("<br>")
                    );
                }
                format!("<h3>{}</h3>\n{}", escape::html(caption), thumbnails.list("", &items))
            }
        }
    }
}

/// A table whose columns of words are left to read from the left.
fn table(caption: &str, names: &[String], rows: &[Vec<String>]) -> String {
    let is_number = |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let is_text = |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|cell| !is_number(cell)));
    let class = |column: usize| if column > 0 && is_text(column) { " class=\"l\"" } else { "" };
    let head: String = names
        .iter()
        .enumerate()
        .map(|(column, name)| format!("<th scope=\"col\"{}>{}</th>", class(column), escape::html(name)))
        .collect();
    let mut body = String::new();
    for row in rows {
        body += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let cell = escape::html(cell);
            let _ = match column {
                0 => write!(body, "<th scope=\"row\" title=\"{cell}\">{cell}</th>"),
                _ => write!(body, "<td{}>{cell}</td>", class(column)),
            };
        }
        body += "</tr>\n";
    }
    let table = shell::table(caption, "sort", &head, &body);
    if rows.len() > 20 { format!("<div class=\"tall\" tabindex=\"0\">\n{table}</div>\n") } else { table }
}

/// A page about images, with as many of their thumbnails as fit.
pub fn data(asked: &DataPage<'_>, budget_bytes: u64) -> ReportPage {
    let DataPage { title, lead, tiles, sections, gallery } = asked;
    let mut head = format!("<p class=\"lead\">{}</p>\n<div class=\"tiles\">\n", escape::html(lead));
    for DataTile { name, value, note } in *tiles {
        let _ = writeln!(
            head,
            "<div class=\"tile\"><span>{}</span><b>{}</b><small>{}</small></div>",
            escape::html(name),
            escape::html(value),
            escape::html(note)
        );
    }
    head += "</div>\n";
    within(budget_bytes, Some(gallery), |_, thumbnails| {
        let section = |section: &DataSection| PageSection {
            id: section.id,
            title: section.title,
            body: section.blocks.iter().map(|block| block.html(thumbnails)).collect(),
        };
        let sections: Vec<PageSection> = sections.iter().map(section).collect();
        page(title, &head, &sections, &thumbnails.rules)
    })
}
