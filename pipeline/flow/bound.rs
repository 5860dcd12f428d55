//! What bounds a run, told from where slot-time went, and what one more core or a faster store would give.
//!
//! A part of the run that is busy for a share `b` of the time lets pass at most 1 / `b` times as much as now. The pool is
//! one such part, with the work of all its stages; every node is another one.

use serde::{Deserialize, Serialize};

use super::meter::{NodeReport, Verb};

/// Below this share of the time nothing can be said to bound a run by its work.
const BUSY_MIN: f64 = 0.6;

/// A gain that is told; less is nothing.
const GAIN_MIN: f64 = 0.01;

/// The part of a run that has the least room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoundBy {
    /// The threads of the pool: all of its stages together.
    Cores,
    /// A node that waits for a disk or a network.
    Store,
    /// One stage, whose slots are all at work while threads are idle, or which runs alone.
    Stage,
    /// Whoever takes the items.
    Consumer,
    /// Nothing is busy most of the time: the ends of short flows, or the limit of memory.
    Nothing,
}

/// What bounds a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// The part with the least room left.
    pub by: BoundBy,
    /// The node that it is; of the cores, the one with the most work for them.
    pub stage: &'static str,
    /// The share of the time for which that part was busy.
    pub busy: f64,
    /// The share of the work of the cores that `stage` is.
    pub share_of_cores: f64,
    /// The share of the time for which the cores were busy.
    pub cores_busy: f64,
    /// The share of the time for which the busiest node that waits for a store had all its requests under way.
    pub store_busy: f64,
    /// How many times as much would pass with one core more, if the work of stages divides evenly among cores.
    pub one_more_core: f64,
    /// How many times as much would pass if each request to the store took half as long.
    pub store_twice_as_fast: f64,
    /// Cores that work for the run.
    #[serde(skip)]
    cores: usize,
}

impl Bound {
    /// What bounded a run of `seconds` with so many threads, of which so many run at once; `None` where nothing ran.
    pub fn of(reports: &[NodeReport], seconds: f64, threads: usize, cores: usize) -> Option<Bound> {
        let ran: Vec<&NodeReport> = reports.iter().filter(|report| report.slot_seconds > 0.0).collect();
        let work = |report: &NodeReport| match report.verb {
            Verb::Compute => report.busy * report.slot_seconds,
            _ => 0.0,
        };
        let cores = cores.clamp(1, threads.max(1));
        let all: f64 = ran.iter().map(|report| work(report)).sum();
        let cores_busy = (all / (threads as f64 * seconds)).min(1.0);
        let busiest = |of: &dyn Fn(&NodeReport) -> f64| {
            let first = *ran.first()?;
            Some(ran.iter().fold(first, |most, report| if of(report) > of(most) { report } else { most }))
        };
        let node = busiest(&|report| report.busy)?;
        let hardest = busiest(&work)?;
        let store = |report: &&&NodeReport| report.verb == Verb::Io;
        let store_busy = ran.iter().filter(store).map(|report| report.busy).fold(0.0, f64::max);
        let others = ran.iter().filter(|report| report.verb != Verb::Io).map(|report| report.busy);
        let others = others.fold(0.0, f64::max);
        let most = cores_busy.max(node.busy);
        let times = |cores_busy: f64, store_busy: f64| most / cores_busy.max(store_busy).max(others);
        let (by, stage) = match node.verb {
            _ if most < BUSY_MIN => (BoundBy::Nothing, node),
            _ if cores_busy > node.busy => (BoundBy::Cores, hardest),
            Verb::Io => (BoundBy::Store, node),
            Verb::Drain => (BoundBy::Consumer, node),
            Verb::Source | Verb::Compute | Verb::Regroup => (BoundBy::Stage, node),
        };
        let is_sure = by != BoundBy::Nothing;
        let fewer = cores as f64 / (cores + 1) as f64;
        Some(Bound {
            by,
            stage: stage.name,
            busy: if by == BoundBy::Cores { cores_busy } else { node.busy },
            share_of_cores: if all > 0.0 { work(stage) / all } else { 0.0 },
            cores_busy,
            store_busy,
            one_more_core: if is_sure { times(cores_busy * fewer, store_busy) } else { 1.0 },
            store_twice_as_fast: if is_sure { times(cores_busy, store_busy / 2.0) } else { 1.0 },
            cores,
        })
    }

    /// One sentence with what would help, where so many items a second pass now.
    pub fn in_words(&self, unit: &str, per_second: f64) -> String {
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let (stage, busy) = (self.stage, percent(self.busy));
        let what = match self.by {
            BoundBy::Nothing => {
                return format!(
                    "nothing bounds it by its work: even {stage} is busy for {busy} of the time only; filling the flow at the \
                     start of each epoch, waiting in order, or --memory holds it up"
                );
            }
            BoundBy::Cores => {
                let cores = match self.cores {
                    1 => "the one core bounds it".to_string(),
                    n => format!("the {n} cores bound it"),
                };
                format!("{cores}, busy {busy}, {} of that in {stage}", percent(self.share_of_cores))
            }
            BoundBy::Store => format!("the store bounds it: {stage} waits for it {busy} of the time"),
            BoundBy::Stage => {
                format!("{stage} bounds it, busy {busy}, and the cores {}", percent(self.cores_busy))
            }
            BoundBy::Consumer => {
                format!("the consumer bounds it: {stage} is busy {busy}, and a faster feed changes nothing")
            }
        };
        let gain = |who: &str, times: f64| {
            let more = format!("{:.0} {unit}/s (+{:.0} %)", per_second * times, (times - 1.0) * 100.0);
            (times - 1.0 >= GAIN_MIN).then(|| format!("{who} would give up to {more}"))
        };
        let core = gain("one more core", self.one_more_core);
        let store = gain("a store twice as fast", self.store_twice_as_fast);
        let gains = match (core, store) {
            (Some(core), Some(store)) => format!("{core}, {store}"),
            (Some(core), None) => format!("{core}, a faster store nothing"),
            (None, Some(store)) => format!("{store}, one more core nothing"),
            (None, None) => "neither one more core nor a faster store would give more".to_string(),
        };
        format!("{what}; {gains}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &'static str, verb: Verb, slots: f64, busy: f64) -> NodeReport {
        NodeReport {
            name,
            verb,
            items_in: 1,
            items_out: 1,
            samples: 0,
            slot_seconds: slots * 10.0,
            busy,
            contended: 0.0,
            blocked: 0.0,
            starved: 1.0 - busy,
            peak_items: 1,
        }
    }

    /// What is said of ten seconds in which these shares of the time were busy: read, decode (8 slots), collate (2 slots),
    /// group and the consumer, with four threads.
    fn said([read, decode, collate, group, count]: [f64; 5], cores: usize) -> String {
        let reports = [
            report("read", Verb::Io, 8.0, read),
            report("decode", Verb::Compute, 8.0, decode),
            report("group", Verb::Regroup, 1.0, group),
            report("collate", Verb::Compute, 2.0, collate),
            report("count", Verb::Drain, 1.0, count),
        ];
        Bound::of(&reports, 10.0, 4, cores).expect("nodes ran").in_words("images", 1000.0)
    }

    #[test]
    fn the_part_with_the_least_room_is_named_with_what_would_help() {
        for (busy, cores, expected) in [
            // Decode takes 3.8 of four threads.
            (
                [0.4, 0.475, 0.0, 0.1, 0.0],
                4,
                "the 4 cores bound it, busy 95 %, 100 % of that in decode; one more core would give up to 1250 images/s \
                 (+25 %), a faster store nothing",
            ),
            // Until the store is the next limit.
            (
                [0.9, 0.475, 0.0, 0.1, 0.0],
                4,
                "the 4 cores bound it, busy 95 %, 100 % of that in decode; one more core would give up to 1056 images/s \
                 (+6 %), a faster store nothing",
            ),
            // Four threads on one core: a second core is one more of two, and not of five.
            (
                [0.4, 0.475, 0.0, 0.1, 0.0],
                1,
                "the one core bounds it, busy 95 %, 100 % of that in decode; one more core would give up to 2000 images/s \
                 (+100 %), a faster store nothing",
            ),
            (
                [1.0, 0.1, 0.0, 0.1, 0.0],
                4,
                "the store bounds it: read waits for it 100 % of the time; a store twice as fast would give up to 2000 \
                 images/s (+100 %), one more core nothing",
            ),
            // Two slots at work, of which half of the threads know nothing.
            (
                [0.1, 0.05, 0.98, 0.1, 0.0],
                4,
                "collate bounds it, busy 98 %, and the cores 59 %; neither one more core nor a faster store would give more",
            ),
            (
                [0.1, 0.05, 0.0, 0.98, 0.0],
                4,
                "group bounds it, busy 98 %, and the cores 10 %; neither one more core nor a faster store would give more",
            ),
            (
                [0.1, 0.05, 0.0, 0.1, 0.99],
                4,
                "the consumer bounds it: count is busy 99 %, and a faster feed changes nothing; neither one more core nor a \
                 faster store would give more",
            ),
            (
                [0.3, 0.05, 0.0, 0.1, 0.0],
                4,
                "nothing bounds it by its work: even read is busy for 30 % of the time only; filling the flow at the start of \
                 each epoch, waiting in order, or --memory holds it up",
            ),
        ] {
            assert_eq!(said(busy, cores), expected, "{busy:?}");
        }
        assert_eq!(Bound::of(&[], 1.0, 1, 1), None);
    }
}
