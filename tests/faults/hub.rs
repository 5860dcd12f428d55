//! The same for the hub that weights come from, and the store that it sends one to for large files.

use std::path::PathBuf;

use super::layer::{Fault, Layer, Plan, Request};
use super::{
    Cell, Ends, Kind, PATIENCE, Passes, Stops, all, check_words, kind, report, run, run_undisturbed,
};
use crate::fixture::Place;
use crate::weights::{Hub, draw, hexadecimal, of_another_program, timm_config, weights};

/// What hubs and everything before them do.
const KINDS: [Kind; 25] = [
    kind("500", Fault::Page(500), Passes, Stops),
    kind("502 of a proxy", Fault::Page(502), Passes, Stops),
    kind("503", Fault::Page(503), Passes, Stops),
    kind("504 of a proxy", Fault::Page(504), Passes, Stops),
    kind("429", Fault::Page(429), Passes, Stops),
    kind("408", Fault::Page(408), Passes, Stops),
    kind("401 RepoNotFound", Fault::Refusal(401, "RepoNotFound"), Stops, Stops),
    kind("403 of a proxy", Fault::Page(403), Passes, Stops),
    kind("404 of a proxy", Fault::Page(404), Passes, Stops),
    kind("307 to nobody", Fault::Redirect(307, true), Ends, Stops),
    kind("200 with a web page", Fault::Page(200), Ends, Stops),
    kind("200 with a tagged web page", Fault::TaggedPage, Ends, Stops),
    kind("answer lost", Fault::Lost, Passes, Stops),
    kind("refused", Fault::Refused, Passes, Stops),
    kind("reset in the body", Fault::Reset, Passes, Stops),
    kind("truncated body", Fault::Truncated, Passes, Stops),
    kind("wrong Content-Length", Fault::Longer, Passes, Ends),
    kind("stalls in the body", Fault::Stall, Passes, Stops),
    kind("silent", Fault::Silent, Passes, Stops),
    kind("drips", Fault::Drip, Passes, Stops),
    kind("flipped byte", Fault::Flipped, Ends, Stops),
    kind("gzip that nobody asked for", Fault::Packed, Passes, Stops),
    kind("Range ignored", Fault::WholeInsteadOfPart, Passes, Passes),
    kind("Range refused, answers cut", Fault::NoRanges, Passes, Stops),
    kind("one byte a connection", Fault::ByteAConnection, Passes, Stops),
];

fn is_config(request: &Request) -> bool {
    request.target.contains("config.json")
}

/// An operation, and the requests that it is made of.
type Operation = (&'static str, fn(&Request) -> bool);

const OPERATIONS: [Operation; 4] = [
    ("head", |request| request.method == "HEAD" && !is_config(request)),
    ("get", |request| request.method == "GET" && !is_config(request)),
    ("config", is_config),
    ("resume", |request| request.method == "GET" && !is_config(request)),
];

fn applies(fault: Fault, operation: &str) -> bool {
    match fault {
        Fault::WholeInsteadOfPart | Fault::NoRanges => operation == "resume",
        Fault::Reset
        | Fault::Truncated
        | Fault::Longer
        | Fault::Stall
        | Fault::Drip
        | Fault::Flipped
        | Fault::Packed
        | Fault::ByteAConnection => operation != "head",
        _ => true,
    }
}

struct Weights {
    bytes: Vec<u8>,
    /// What the plan of a training says that begins with them.
    plan: String,
}

/// A hub with weights, and the layer before it and before its store.
fn start(bytes: &[u8]) -> (Hub, Layer) {
    let hub = Hub::start(&[("model.safetensors", bytes), ("config.json", &timm_config())]);
    let layer = Layer::before(hub.hub, None);
    hub.state().front = Some(Layer::beside(&layer, hub.storage));
    (hub, layer)
}

fn place(layer: &Layer) -> Place {
    let mut place = Place::new();
    draw(&place);
    place.set("FOREBAY_PATIENCE", PATIENCE);
    place.set("HF_ENDPOINT", &format!("http://{}", layer.address));
    place
}

const PLAN: &str = "plan train in --out run --model small --split none --weights hf:o/n";

fn try_one(weights: &Weights, kind: &Kind, cell: &Cell, seed: u64) -> Result<bool, String> {
    let (hub, layer) = start(&weights.bytes);
    let place = place(&layer);
    let tag = hexadecimal(ring::digest::digest(&ring::digest::SHA256, &weights.bytes).as_ref());
    let blob: PathBuf = place.path(".cache/huggingface/hub/models--o--n/blobs").join(&tag);
    if cell.operation == "resume" {
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob.with_extension("incomplete"), &weights.bytes[..weights.bytes.len() / 3]).unwrap();
    }
    let (_, may_hit) = OPERATIONS.iter().find(|(name, _)| *name == cell.operation).expect("one of them");
    layer.set(Some(Plan { fault: kind.fault, seed, times: cell.times, one_in: 1, may_hit: *may_hit }));
    let said = run(&place, PLAN)?;
    let n_hits = layer.hits();
    layer.set(None);
    if n_hits == 0 {
        return Ok(false);
    }
    check_words(&said)?;
    let expected = if cell.times.is_some() { kind.once } else { kind.always };
    let words = || format!("exit {}: {}", said.code, said.stderr.trim());
    match (expected, said.code) {
        (Passes, 1..) => return Err(format!("it should have passed: {}", words())),
        (Stops, 0) => return Err(format!("it should have stopped: {}", words())),
        (_, 0) if said.stdout != weights.plan => {
            return Err(format!("it plans something else: {}\n{}", words(), said.stdout));
        }
        _ => {}
    }
    let again = run_undisturbed(&place, PLAN)?;
    let stored = std::fs::read(&blob).unwrap_or_default();
    match (again.code, again.stdout == weights.plan, stored == weights.bytes) {
        (0, true, true) => Ok(true),
        _ => Err(format!("after {} a run again ends with {}: {}", words(), again.code, again.stderr)),
    }
    .inspect(|_| drop(hub))
}

#[test]
fn every_fault_of_a_hub_is_met() {
    let bytes = of_another_program(&self::weights(&{
        let place = Place::new();
        draw(&place);
        place
    }));
    let (_hub, layer) = start(&bytes);
    let undisturbed = run_undisturbed(&place(&layer), PLAN).expect("it ends").done().stdout;
    let weights = Weights { bytes, plan: undisturbed };
    let mut cells = Vec::new();
    for (row, kind) in KINDS.iter().enumerate() {
        for (operation, _) in OPERATIONS.iter().filter(|(name, _)| applies(kind.fault, name)) {
            cells.extend([Some(1), None].map(|times| Cell { row, operation, times }));
        }
    }
    let one = |cell: &Cell, seed| try_one(&weights, &KINDS[cell.row], cell, seed);
    report("hub", &KINDS.map(|kind| kind.name), all(&cells, one));
}
