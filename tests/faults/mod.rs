//! What networks, proxies, busy servers and hostile ones do, against every operation on a bucket: the outcome is the one
//! of an undisturbed run, or one line that says what is wrong, and then a run again ends as the undisturbed one.
//!
//! `FOREBAY_FAULT_SEEDS=20` runs the long form. The tables are in `faults-bucket.txt` and `faults-hub.txt` in the folder for
//! temporary files of cargo, which is `target/tmp`.

mod hub;
mod layer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use self::layer::{Fault, Layer, Plan, Request};
use crate::bucket::{SECRET, Server};
use crate::fixture::{Place, Said, files};

/// Servers are waited for a small part of the usual time: a silent one for 1.8 seconds, a failing one for 5.4.
const PATIENCE: &str = "0.03";

/// Larger objects are put in parts: the small shards are not, the large one is. S3 takes no smaller parts.
const PART_BYTES: usize = 5 << 20;

/// No run may take longer, whatever a server does. It is that much because the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a run has to come to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// The result of an undisturbed run.
    Passes,
    /// One line and an exit status.
    Stops,
    /// Either of both.
    Ends,
}
use Outcome::{Ends, Passes, Stops};

/// A kind of fault; what a run comes to that it hits once per request, and what one that it hits for ever.
struct Kind {
    name: &'static str,
    fault: Fault,
    once: Outcome,
    always: Outcome,
}

const fn kind(name: &'static str, fault: Fault, once: Outcome, always: Outcome) -> Kind {
    Kind { name, fault, once, always }
}

/// What S3 and everything before it do.
const KINDS: [Kind; 35] = [
    kind("500 InternalError", Fault::Refusal(500, "InternalError"), Passes, Stops),
    kind("502 of a proxy", Fault::Page(502), Passes, Stops),
    kind("503 SlowDown", Fault::Refusal(503, "SlowDown"), Passes, Stops),
    kind("504 of a proxy", Fault::Page(504), Passes, Stops),
    kind("429 TooManyRequests", Fault::Refusal(429, "TooManyRequests"), Passes, Stops),
    kind("408 RequestTimeout", Fault::Refusal(408, "RequestTimeout"), Passes, Stops),
    kind("400 RequestTimeout", Fault::Refusal(400, "RequestTimeout"), Passes, Stops),
    kind("403 AccessDenied", Fault::Refusal(403, "AccessDenied"), Ends, Ends),
    kind("403 RequestExpired", Fault::Refusal(403, "RequestExpired"), Ends, Stops),
    kind("403 of a proxy", Fault::Page(403), Ends, Stops),
    kind("400 ExpiredToken", Fault::Refusal(400, "ExpiredToken"), Ends, Stops),
    kind("404 NoSuchKey", Fault::Refusal(404, "NoSuchKey"), Ends, Ends),
    kind("404 of a proxy", Fault::Page(404), Ends, Stops),
    kind("404 NoSuchBucket", Fault::Refusal(404, "NoSuchBucket"), Ends, Stops),
    kind("409 OperationAborted", Fault::Refusal(409, "OperationAborted"), Ends, Stops),
    kind("412 PreconditionFailed", Fault::Refusal(412, "PreconditionFailed"), Ends, Ends),
    kind("301 to another region", Fault::Redirect(301, false), Ends, Stops),
    kind("307 to nobody", Fault::Redirect(307, true), Ends, Stops),
    kind("200 with an error", Fault::Refusal(200, "InternalError"), Passes, Stops),
    kind("200 with a web page", Fault::Page(200), Passes, Stops),
    kind("refused", Fault::Refused, Passes, Stops),
    kind("reset in the body", Fault::Reset, Passes, Stops),
    kind("truncated body", Fault::Truncated, Passes, Stops),
    kind("wrong Content-Length", Fault::Longer, Passes, Stops),
    kind("stalls in the body", Fault::Stall, Passes, Stops),
    kind("silent", Fault::Silent, Passes, Stops),
    kind("drips", Fault::Drip, Passes, Stops),
    kind("flipped byte", Fault::Flipped, Ends, Ends),
    kind("gzip that nobody asked for", Fault::Packed, Passes, Stops),
    kind("answer lost", Fault::Lost, Passes, Ends),
    kind("request arrives twice", Fault::Twice, Passes, Passes),
    kind("If-None-Match ignored", Fault::Unconditional, Passes, Passes),
    kind("listing cut off", Fault::CutPage, Passes, Stops),
    kind("key listed twice", Fault::DoubledKey, Ends, Stops),
    kind("continuation token again", Fault::RepeatedToken, Ends, Stops),
];

/// An operation, and the requests that it is made of.
struct Operation {
    name: &'static str,
    may_hit: fn(&Request) -> bool,
    command: Command,
}

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Prepare,
    /// With a shard that is put in parts.
    PrepareLarge,
    /// Over another dataset, which goes.
    Overwrite,
    /// After a run that was killed.
    Resume,
    Verify,
}

fn writes(request: &Request) -> bool {
    ["PUT", "POST", "DELETE"].contains(&request.method.as_str())
}

const OPERATIONS: [Operation; 8] = [
    Operation { name: "list", may_hit: Request::is_listing, command: Command::Prepare },
    Operation {
        name: "get",
        may_hit: |request| !request.is_listing() && !writes(request),
        command: Command::Prepare,
    },
    Operation { name: "put", may_hit: writes, command: Command::Prepare },
    Operation {
        name: "part",
        may_hit: |request| request.target.contains("partNumber="),
        command: Command::PrepareLarge,
    },
    Operation {
        name: "complete",
        may_hit: |request| request.method == "POST" && request.target.contains("upload"),
        command: Command::PrepareLarge,
    },
    Operation {
        name: "delete",
        may_hit: |request| request.method == "DELETE" && !request.target.contains("uploadId="),
        command: Command::Overwrite,
    },
    Operation { name: "resume", may_hit: |_| true, command: Command::Resume },
    Operation { name: "verify", may_hit: |_| true, command: Command::Verify },
];

/// Kinds whose trouble is in the body of an answer, or in a condition, hit no request that has none.
fn applies(fault: Fault, operation: &Operation) -> bool {
    match fault {
        Fault::CutPage | Fault::DoubledKey | Fault::RepeatedToken => operation.name == "list",
        Fault::Unconditional => operation.name == "put",
        Fault::Reset
        | Fault::Truncated
        | Fault::Longer
        | Fault::Stall
        | Fault::Drip
        | Fault::Flipped
        | Fault::Packed => !["put", "part", "complete", "delete"].contains(&operation.name),
        _ => true,
    }
}

/// Runs the program, which may not hang.
fn run(place: &Place, arguments: &str) -> Result<Said, String> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run_command(place.command(&arguments))
}

/// The same where nothing is wrong with the server but that the machine may be busy.
fn run_undisturbed(place: &Place, arguments: &str) -> Result<Said, String> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = place.command(&arguments);
    command.env_remove("FOREBAY_PATIENCE");
    run_command(command)
}

fn run_command(mut command: std::process::Command) -> Result<Said, String> {
    let mut child = command.spawn().expect("it starts");
    let began = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if began.elapsed() > DEADLINE {
            let _ = child.kill();
            return Err("it hangs".to_string());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Said::of(child.wait_with_output().expect("its output")))
}

/// The files of a dataset but its plan, which holds the versions of the source.
fn dataset(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(root);
    files.remove("plan.json");
    files
}

/// What every end of a run has in common; the rest is compared with the undisturbed run.
fn check_words(said: &Said) -> Result<(), String> {
    let stderr = &said.stderr;
    let trouble = match said.code {
        _ if stderr.contains("panicked at") || said.code > 4 => "it panicked or was killed",
        _ if stderr.contains('\x1b') || said.stdout.contains('\x1b') => "an escape was printed",
        _ if stderr.contains(SECRET) || said.stdout.contains(SECRET) => "the secret was printed",
        0 => return Ok(()),
        _ if stderr.trim().is_empty() && said.stdout.trim().is_empty() => "it says nothing",
        _ => return Ok(()),
    };
    Err(format!("{trouble}: exit {}, {stderr}", said.code))
}

fn prepare(command: Command, out: &str, address: &str) -> String {
    let (source, how) = match command {
        Command::PrepareLarge => ("large", "--size original --encode raw"),
        Command::Overwrite => ("in", "--size 16 --encode png --samples-per-shard 4 --overwrite"),
        _ => ("in", "--size 16 --encode png --samples-per-shard 4"),
    };
    format!(
        "prepare s3://bucket/{source} s3://bucket/{out} {how} --split none --json --threads 1 --endpoint http://{address}"
    )
}

struct Bucket {
    server: Server,
    place: Place,
    /// The dataset of an undisturbed run, and of one with a large shard.
    reference: [BTreeMap<String, Vec<u8>>; 2],
}

impl Bucket {
    fn new() -> Bucket {
        let server = Server::start();
        let mut place = server.place(SECRET);
        place.set("FOREBAY_PATIENCE", PATIENCE);
        place.set("FOREBAY_PART_BYTES", &PART_BYTES.to_string());
        for index in 0..12u64 {
            place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 40, 40, index);
        }
        for index in 0..2 {
            place.write_png(&format!("large/{}/{index}.png", ["a", "b"][index as usize]), 950, 950, index);
        }
        for folder in ["in", "large"] {
            for (name, bytes) in place.files(folder) {
                let path = server.root.join(folder).join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        let mut bucket = Bucket { server, place, reference: Default::default() };
        let address = bucket.server.address.to_string();
        for (index, command) in [Command::Prepare, Command::PrepareLarge].into_iter().enumerate() {
            let out = ["ref", "ref-large"][index];
            run_undisturbed(&bucket.place, &prepare(command, out, &address)).expect("it ends").done();
            bucket.reference[index] = dataset(&bucket.server.root.join(out));
        }
        let [small, large] = &bucket.reference;
        assert!(small.keys().filter(|name| name.ends_with(".parquet")).count() == 3, "{:?}", small.keys());
        assert!(large.values().any(|bytes| bytes.len() > PART_BYTES), "its shard is put in parts");
        bucket
    }

    /// One run under a fault, and one after it without.
    fn try_one(
        &self,
        kind: &Kind,
        operation: &Operation,
        times: Option<u32>,
        seed: u64,
    ) -> Result<bool, String> {
        let layer = Layer::before(self.server.address, self.server.root.parent());
        let address = layer.address.to_string();
        let how = if times.is_some() { "once" } else { "always" };
        let out = format!("{}-{}-{how}-{seed}", kind.name.replace(' ', "_"), operation.name);
        let root = self.server.root.join(&out);
        let command = match operation.command {
            Command::Verify => format!("verify s3://bucket/ref --json --endpoint http://{address}"),
            command => prepare(command, &out, &address),
        };
        if operation.command == Command::Overwrite {
            // Three shards give way to three of other names.
            let other =
                command.replace(" --overwrite", "").replace("--samples-per-shard 4", "--samples-per-shard 5");
            run_undisturbed(&self.place, &other)?.done();
        }
        if operation.command == Command::Resume {
            let has_shard = || files(&root).keys().any(|name| name.ends_with(".parquet"));
            self.place.run_and_kill(&command, has_shard);
        }
        // Every request is hit once, or a part of them for ever: which, the seed tells.
        let one_in = if times.is_some() || operation.name == "list" { 1 } else { 2 };
        layer.set(Some(Plan { fault: kind.fault, seed, times, one_in, may_hit: operation.may_hit }));
        let said = run(&self.place, &command)?;
        let n_hits = layer.hits();
        layer.set(None);
        if n_hits == 0 {
            return Ok(false);
        }
        check_words(&said)?;
        let expected = if times.is_some() { kind.once } else { kind.always };
        let is_done = said.code == 0;
        let words = || format!("exit {}: {} {}", said.code, said.stderr.trim(), said.stdout.trim());
        match (expected, is_done) {
            (Passes, false) => return Err(format!("it should have passed: {}", words())),
            (Stops, true) => return Err(format!("it should have stopped: {}", words())),
            _ => {}
        }
        if operation.command == Command::Verify {
            return Ok(true);
        }
        let reference = &self.reference[usize::from(operation.command == Command::PrepareLarge)];
        let is_whole = dataset(&root) == *reference;
        if is_done && !is_whole {
            return Err(format!("it says that it is done, and the dataset is another: {}", words()));
        }
        let again = run_undisturbed(&self.place, &prepare(operation.command, &out, &address))?;
        if again.code != 0 || dataset(&root) != *reference {
            return Err(format!(
                "after {} a run again ends with {} and {} of {} files: {}",
                words(),
                again.code,
                dataset(&root).len(),
                reference.len(),
                again.stderr
            ));
        }
        Ok(true)
    }
}

#[test]
fn every_fault_of_a_bucket_is_met() {
    let bucket = Bucket::new();
    let mut cells = Vec::new();
    for (row, kind) in KINDS.iter().enumerate() {
        for operation in OPERATIONS.iter().filter(|operation| applies(kind.fault, operation)) {
            cells.extend([Some(1), None].map(|times| Cell { row, operation: operation.name, times }));
        }
    }
    let one = |cell: &Cell, seed| {
        let operation =
            OPERATIONS.iter().find(|operation| operation.name == cell.operation).expect("one of them");
        bucket.try_one(&KINDS[cell.row], operation, cell.times, seed)
    };
    report("bucket", &KINDS.map(|kind| kind.name), all(&cells, one));
}

/// One kind against one operation.
struct Cell {
    row: usize,
    operation: &'static str,
    /// How often each request is hit; `None` for ever.
    times: Option<u32>,
}

/// The sum of a kind and an operation: tried, passed, and what did not.
type Row = (usize, usize, Vec<String>);

/// Tries every cell with every seed. `one` says whether any request was hit.
#[allow(clippy::disallowed_methods, reason = "the threads of a test are no nodes of a dataflow")]
fn all(
    cells: &[Cell],
    one: impl Fn(&Cell, u64) -> Result<bool, String> + Sync,
) -> BTreeMap<(usize, &'static str), Row> {
    let seeds: u64 = std::env::var("FOREBAY_FAULT_SEEDS").map_or(1, |text| text.parse().expect("a number"));
    let rows: Mutex<BTreeMap<(usize, &'static str), Row>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // They wait more than they compute.
        for _ in 0..12 {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::SeqCst)) {
                    for seed in 0..seeds {
                        // A seed may hit no request of the few that there are.
                        let tried = (0..20)
                            .map(|more| one(cell, seed + 1000 * more))
                            .find(|tried| *tried != Ok(false));
                        let mut rows = rows.lock().unwrap();
                        let (n_tried, n_passed, troubles) =
                            rows.entry((cell.row, cell.operation)).or_default();
                        *n_tried += usize::from(tried.is_some());
                        match tried {
                            Some(Ok(_)) => *n_passed += 1,
                            Some(Err(trouble)) => troubles.push(trouble),
                            None => troubles.push("no request was hit".to_string()),
                        }
                    }
                }
            });
        }
    });
    rows.into_inner().unwrap()
}

/// Writes the table, and fails where a row does not pass.
fn report(what: &str, names: &[&str], rows: BTreeMap<(usize, &'static str), Row>) {
    let mut table = format!("{:<28} {:<8} {:>5} {:>6}\n", "kind", "operation", "tried", "passed");
    let mut troubles = String::new();
    let (mut n_tried, mut n_passed) = (0, 0);
    for ((row, operation), (tried, passed, trouble)) in &rows {
        table += &format!("{:<28} {operation:<8} {tried:>5} {passed:>6}\n", names[*row]);
        (n_tried, n_passed) = (n_tried + tried, n_passed + passed);
        for trouble in trouble {
            troubles += &format!("{} / {operation}: {}\n", names[*row], trouble.replace('\n', " | "));
        }
    }
    table += &format!("{:<28} {:<8} {n_tried:>5} {n_passed:>6}\n", what, "all");
    println!("{table}");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(place)
        .and_then(|()| std::fs::write(place.join(format!("faults-{what}.txt")), table))
        .unwrap();
    assert!(troubles.is_empty(), "\n{troubles}");
}

#[test]
fn a_server_that_is_not_found_is_named() {
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", PATIENCE);
    place.set("AWS_ACCESS_KEY_ID", "key-id");
    place.set("AWS_SECRET_ACCESS_KEY", SECRET);
    for command in ["inspect s3://bucket/in", "prepare s3://bucket/in out", "verify s3://bucket/in"] {
        let said = run(&place, &format!("{command} --endpoint http://store.invalid:9")).expect("it ends");
        let said = said.refused(1, "check the endpoint (http://store.invalid:9) and the network");
        assert_eq!(said.stderr.trim().lines().count(), 1, "{}", said.stderr);
    }
}
