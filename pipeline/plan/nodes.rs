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
    /// Its slots and its queue; `None` where it is in the slots of the node before.
    pub room: Option<Room>,
    /// What it does, or with what.
    pub what: String,
}

impl PlannedNode {
    /// A node of this name.
    pub fn new(name: &'static str, room: Room, what: impl Into<String>) -> PlannedNode {
        PlannedNode { name, room: Some(room), what: what.into() }
    }

    /// A stage that works on what the node before has made, in its slots.
    fn then(name: &'static str, what: impl Into<String>) -> PlannedNode {
        PlannedNode { name, room: None, what: what.into() }
    }

    /// The nodes that every image passes on its own, from its file on.
    pub fn of_stages(scales: &Scales, chain: &Chain, room: Room) -> Vec<PlannedNode> {
        let up_to = scales.decode.limits.side_px_max;
        let mut nodes =
            vec![PlannedNode::new(Decode::NAME, room, format!("to RGB, up to {up_to} px a side"))];
        for (index, step) in scales.steps.iter().enumerate() {
            let is_again = scales.steps[..index].iter().any(|step| matches!(step, Step::Resize(_)));
            nodes.push(match step {
                Step::Augment(augment) => PlannedNode::then(Augment::NAME, augment_in_words(Some(augment))),
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
                    PlannedNode::then(Augment::NAME, what)
                }
                Step::Resize(_) if is_again => PlannedNode::then(Resize::NAME, "to a square again"),
                Step::Resize(_) => PlannedNode::then(Resize::NAME, chain.to_string()),
            });
        }
        if let Some(encode) = &scales.encode {
            nodes.push(PlannedNode::then(Encode::NAME, encode.encoding.to_string()));
        }
        nodes
    }
}

/// The nodes as lines of a plan.
pub fn nodes_in_words(chunk: usize, nodes: &[PlannedNode]) -> String {
    let mut text = format!("  stages       (slots + queue, of chunks of {chunk} samples)\n");
    for PlannedNode { name, room, what } in nodes {
        let room = room.map_or_else(String::new, |room| format!("{:>3} + {}", room.slots, room.queue));
        let _ = writeln!(text, "    {name:<10} {room:<9} {what}");
    }
    text
}
