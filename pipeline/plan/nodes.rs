//! The nodes of a dataflow before it runs, as plans show them; tests compare them with those that ran.

use std::fmt::Write as _;

use forebay_stages::augment::Augment;
use forebay_stages::chain::Chain;
use forebay_stages::decode::Decode;
use forebay_stages::encode::Encode;
use forebay_stages::resize::Resize;
use forebay_stages::stage::Stage;
use forebay_stages::weight::{Scales, Step};

use super::in_words::augment_in_words;
use crate::flow::Room;

/// A node of a dataflow that is planned.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its name, also in metrics and errors.
    pub name: &'static str,
    /// Its slots and its queue.
    pub room: Room,
    /// What it does, or with what.
    pub what: String,
}

impl PlannedNode {
    /// A node of this name.
    pub fn new(name: &'static str, room: Room, what: impl Into<String>) -> PlannedNode {
        PlannedNode { name, room, what: what.into() }
    }

    /// The nodes that every image passes on its own, from its file on.
    pub fn of_stages(scales: &Scales, chain: &Chain, room: Room) -> Vec<PlannedNode> {
        let up_to = scales.decode.limits.side_px_max;
        let mut nodes =
            vec![PlannedNode::new(Decode::NAME, room, format!("to RGB, up to {up_to} px a side"))];
        for (index, step) in scales.steps.iter().enumerate() {
            let is_again = scales.steps[..index].iter().any(|step| matches!(step, Step::Resize(_)));
            nodes.push(match step {
                Step::Augment(augment) => {
                    PlannedNode::new(Augment::NAME, room, augment_in_words(Some(augment)))
                }
                Step::ByClass(by_class) => {
                    let augment = |steps: &[Step]| {
                        let found = steps.iter().find_map(|step| match step {
                            Step::Augment(augment) => Some(augment.clone()),
                            _ => None,
                        });
                        augment_in_words(found.as_ref())
                    };
                    let n = by_class.is_rare.iter().filter(|is_rare| **is_rare).count();
                    let (common, rare) = (augment(&by_class.common), augment(&by_class.rare));
                    let what = format!("{chain}; {common}; of {n} rare classes: {rare}");
                    PlannedNode::new(Augment::NAME, room, what)
                }
                Step::Resize(_) if is_again => PlannedNode::new(Resize::NAME, room, "to a square again"),
                Step::Resize(_) => PlannedNode::new(Resize::NAME, room, chain.to_string()),
            });
        }
        if let Some(encode) = &scales.encode {
            nodes.push(PlannedNode::new(Encode::NAME, room, encode.encoding.to_string()));
        }
        nodes
    }
}

/// The nodes as lines of a plan.
pub fn nodes_in_words(chunk: usize, nodes: &[PlannedNode]) -> String {
    let mut text = format!("  stages       (slots + queue, of chunks of {chunk} samples)\n");
    for PlannedNode { name, room, what } in nodes {
        let _ = writeln!(text, "    {name:<10} {:>3} + {:<3} {what}", room.slots, room.queue);
    }
    text
}
