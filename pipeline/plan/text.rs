//! Plans as people read them.

use std::fmt::Write as _;

use forebay_datasets::manifest::FixedLabels;
use forebay_datasets::sample::Split;

use forebay_stages::resize::Fit;

use super::in_words::balance_in_words;
use super::nodes::nodes_in_words;
use super::prepare::PreparePlan;
use crate::options::bytes_in_words;

/// The most memory in flight and its parts, as lines of a plan.
pub fn memory_in_words(parts: &[(&'static str, u64)]) -> String {
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let mut text = format!("  memory       at most {} in flight:\n", bytes_in_words(total));
    for (name, bytes) in parts {
        let _ = writeln!(text, "    {:>10}  {name}", bytes_in_words(*bytes));
    }
    text
}

/// The same for programs: each part with its bytes, and their sum.
pub fn memory_as_json(parts: &[(&'static str, u64)]) -> serde_json::Value {
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let parts: Vec<_> =
        parts.iter().map(|(name, bytes)| serde_json::json!({"part": name, "bytes": bytes})).collect();
    serde_json::json!({"most_bytes": total, "parts": parts})
}

/// The lines of a table, as they stand below a line of a plan.
pub(crate) fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

impl std::fmt::Display for PreparePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let catalog = &self.rows.catalog;
        let _ = writeln!(text, "prepare {} -> {}", self.source.location(), self.dest.location());
        let _ = writeln!(text, "  fingerprint  {}", &self.fingerprint[..16]);
        let _ = writeln!(
            text,
            "  source       {}: {} samples in {} classes",
            catalog.layout(),
            catalog.entries().len(),
            catalog.classes().len()
        );
        if let Some(FixedLabels { relabelled, dropped, kept }) = self.fixes {
            let _ = writeln!(
                text,
                "  fixes        {relabelled} relabelled, {dropped} dropped, {kept} kept as they are"
            );
        }
        for split in Split::ALL {
            let rows = self.rows.of(split).len();
            let shards = self.shards.iter().filter(|shard| shard.split == split).count();
            let _ = writeln!(
                text,
                "  {split:<12} {rows} rows in {shards} shards of up to {}",
                self.samples_per_shard
            );
        }
        if let (Some(by), Some(step)) = (self.side_by, self.chain.steps().first()) {
            let side = step.side;
            let _ = match step.fit {
                Fit::Shortest => writeln!(text, "  size         shorter side {side} ({by})"),
                _ => writeln!(text, "  size         {side} x {side} ({by})"),
            };
        }
        if let Some(mode) =
            self.settings.get("balance.mode").and_then(|mode| mode.as_str()).filter(|mode| *mode != "none")
        {
            let _ = writeln!(text, "  balance      {mode}, training split:");
            text += &indented(&balance_in_words(catalog.classes(), &self.rows.balance));
        }
        text += &nodes_in_words(self.chunk, &self.nodes());
        let _ = writeln!(text, "  threads      {}", self.rooms.threads);
        text += &memory_in_words(&self.memory());
        for warning in &self.rows.warnings {
            let _ = writeln!(text, "  note         {warning}");
        }
        f.write_str(&text)
    }
}
