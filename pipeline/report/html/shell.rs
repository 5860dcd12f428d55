//! The page around its sections: one file without network, in light and dark, for narrow and wide screens and paper.

use std::fmt::Write as _;

use forebay_datasets::escape;

use super::super::palette::dark_rules;

const STYLE: &str = include_str!("style.css");

/// What a page can do better with a script than without; everything is there without it.
const SCRIPT: &str = include_str!("script.js");

/// A part of a page, which its head links to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageSection {
    /// What the link leads to.
    pub(super) id: &'static str,
    /// Its heading, as text.
    pub(super) title: &'static str,
    /// What stands below, as HTML.
    pub(super) body: String,
}

/// A whole page: `title` as text, `lead` as HTML below it, and then the sections. `rules` are styles of its own.
pub(super) fn page(title: &str, lead: &str, sections: &[PageSection], rules: &str) -> String {
    let title = escape::html(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}@media (prefers-color-scheme: dark) {{\n{}}}\n{rules}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<h1>{title}</h1>\n{lead}<nav aria-label=\"Sections\">",
        dark_rules()
    );
    for PageSection { id, title, .. } in sections {
        let _ = write!(page, "<a href=\"#{id}\">{}</a>", escape::html(title));
    }
    page += "</nav>\n</header>\n";
    for PageSection { id, title, body } in sections {
        let title = escape::html(title);
        let _ = write!(page, "<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>\n");
    }
    let _ = write!(page, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    page
}

/// A table in a box of its own, which scrolls where the screen is narrow. `head` and `rows` are HTML.
pub(super) fn table(caption: &str, class: &str, head: &str, rows: &str) -> String {
    let caption = escape::html(caption);
    format!(
        "<figure><figcaption>{caption}</figcaption>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n\
         <table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></figure>\n"
    )
}

/// The cells of a table's head: the first as a name, the others as numbers.
pub(super) fn head(names: &[&str]) -> String {
    names.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape::html(name))).collect()
}

/// What can be opened.
pub(super) fn details(summary: &str, body: &str) -> String {
    format!("<details><summary>{}</summary>\n{body}</details>\n", escape::html(summary))
}

/// Lines of a file or a command, as they are.
pub(super) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escape::html).collect();
    format!("<pre tabindex=\"0\">{}</pre>\n", lines.join("\n"))
}

/// Horizontal bars: a name, a value from 0 to 1 that is drawn, and how it reads.
pub(super) fn bars(label: &str, rows: &[(String, f64, String)]) -> String {
    let mut text = format!("<ul class=\"bars\" aria-label=\"{}\">\n", escape::html(label));
    for (name, share, words) in rows {
        let name = escape::html(name);
        let share = 100.0 * if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        let _ = writeln!(
            text,
            "<li><span title=\"{name}\">{name}</span><i><b style=\"width:{share:.2}%\"></b></i><span>{}</span></li>",
            escape::html(words)
        );
    }
    text + "</ul>\n"
}
