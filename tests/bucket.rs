//! The same job from and to a bucket: an S3 server on loopback that checks signatures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::fixture::{Place, Said, files};

pub(crate) const SECRET: &str = "a-secret-that-is-never-printed";

/// A server with one bucket, `bucket`, kept as a folder.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) root: PathBuf,
    _folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
    pub(crate) fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("bucket");
        std::fs::create_dir(&root).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("key-id", SECRET));
        let service = builder.build();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let connection = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service.clone())
                    .into_owned();
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        Server { address, root, _folder: folder, _runtime: runtime }
    }

    pub(crate) fn place(&self, secret: &str) -> Place {
        let mut place = Place::new();
        place.set("AWS_ACCESS_KEY_ID", "key-id");
        place.set("AWS_SECRET_ACCESS_KEY", secret);
        place
    }

    fn endpoint(&self) -> String {
        format!("--endpoint http://{}", self.address)
    }

    fn parquet(&self, prefix: &str) -> usize {
        files(&self.root.join(prefix)).keys().filter(|name| name.ends_with(".parquet")).count()
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn the_whole_job_runs_from_and_to_a_bucket() {
    let server = Server::start();
    let place = server.place(SECRET);
    place.draw();
    copy(&place.path("images"), &server.root.join("images"));
    let endpoint = server.endpoint();
    let options = "--size 32 --fit crop --encode png --samples-per-shard 10 --max-rejects 10 --json";
    let mut heard = String::new();
    let mut run = |arguments: &str| -> Said {
        let said = place.run(arguments);
        heard.push_str(&said.stdout);
        heard.push_str(&said.stderr);
        said
    };

    // The same bytes as on a disk, and after a kill.
    run(&format!("prepare images local {options}")).done();
    let prepare = format!("prepare s3://bucket/images s3://bucket/shards {options} {endpoint}");
    place.run_and_kill(&prepare, || server.parquet("shards") >= 2);
    assert!(!server.root.join("shards/manifest.json").exists());
    let resumed = run(&prepare).done().json();
    assert!(resumed["shards_reused"].as_u64().unwrap() >= 2, "{resumed}");
    let local = place.files("local");
    let remote = files(&server.root.join("shards"));
    // Which versions the files had is the store's to say, and stands in the plan only.
    for (name, bytes) in local.iter().filter(|(name, _)| *name != "plan.json") {
        assert!(remote.get(name) == Some(bytes), "{name} differs");
    }
    run(&format!("verify s3://bucket/shards {endpoint}")).done();
    run(&format!("inspect s3://bucket/images {endpoint}")).done();
    run(&format!("bench s3://bucket/shards --epochs 1 --json {endpoint}")).done();

    let train = "--epochs 1 --batch-size 16 --json";
    run(&format!("train local --out run {train}")).done();
    run(&format!("train s3://bucket/shards --out s3://bucket/run {train} {endpoint}")).done();
    for name in ["model.safetensors", "last.safetensors", "metrics.jsonl", "config.toml", "report.html"] {
        assert!(server.root.join("run").join(name).exists(), "{name}");
    }
    // The identity of the run differs in nothing but where its data is.
    let weights = |bytes: &[u8]| -> Vec<(String, String)> {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let mut tensors: Vec<_> =
            tensors.iter().map(|(n, t)| (n.to_string(), blake3::hash(t.data()).to_string())).collect();
        tensors.sort();
        tensors
    };
    let remote = std::fs::read(server.root.join("run/model.safetensors")).unwrap();
    assert_eq!(weights(&remote), weights(&place.files("run")["model.safetensors"]));

    assert!(!heard.contains(SECRET), "the secret was printed");
    let stored = files(&server.root);
    let contains = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    assert!(stored.values().all(|bytes| !contains(bytes)), "the secret was stored");
}

#[test]
fn images_and_shards_of_a_bucket_are_predicted_by_a_run_in_it_and_its_runs_compared() {
    let server = Server::start();
    let place = server.place(SECRET);
    crate::evaluation::images(&place, 60);
    place.write("in/dark/broken.png", b"no image");
    copy(&place.path("in"), &server.root.join("in"));
    let endpoint = server.endpoint();
    let run = |arguments: &str| place.run(&format!("{arguments} {endpoint}"));
    let train = format!("{} --max-rejects 3", crate::evaluation::QUICK);
    for seed in 1..=2 {
        run(&format!("train s3://bucket/in --out s3://bucket/run{seed} --seed {seed} {train}")).done();
        copy(&server.root.join(format!("run{seed}")), &place.path(&format!("run{seed}")));
    }
    run("prepare s3://bucket/in s3://bucket/shards --size original --encode png --max-rejects 3").done();

    // A prefix of images, as the same folder on a disk.
    let rejected = "1 of 61 images could not be read, and the others are answered: dark/broken.png";
    let local = place.run("predict run1 in --format jsonl").refused(3, rejected);
    let remote = run("predict s3://bucket/run1 s3://bucket/in/ --format jsonl").refused(3, rejected);
    assert_eq!((remote.stdout.lines().count(), &remote.stdout), (61, &local.stdout));
    let one = run("predict s3://bucket/run1/ s3://bucket/in/dark/000.png --format jsonl").done();
    assert_eq!(one.json()["id"], "s3://bucket/in/dark/000.png");
    run("predict s3://bucket/run1 s3://bucket/in/none.png").refused(2, "no image in s3://bucket/in/none.png");
    run("predict s3://bucket/nothing s3://bucket/in/").refused(2, "s3://bucket/nothing");

    // Tables of a folder of shards, and of the prefix, back to the bucket.
    let ids = |split: &str| -> std::collections::BTreeSet<String> {
        split.lines().map(|line| line.split(',').next().unwrap().to_string()).collect()
    };
    let stored = |name: &str| std::fs::read(server.root.join(name)).unwrap();
    run("predict s3://bucket/run1 s3://bucket/shards/ --output s3://bucket/out/shards.csv").done();
    run("predict s3://bucket/run1 s3://bucket/in/ --output s3://bucket/out/in.csv").refused(3, rejected);
    let (shards, images) = (stored("out/shards.csv"), stored("out/in.csv"));
    let (shards, images) = (String::from_utf8(shards).unwrap(), String::from_utf8(images).unwrap());
    assert_eq!((shards.lines().count(), images.lines().count()), (61, 62));
    assert!(ids(&images).is_superset(&ids(&shards)), "{shards}");
    run("predict s3://bucket/run1 s3://bucket/in/ --output s3://bucket/out/in.parquet").refused(3, rejected);
    let table =
        forebay::predictions::Predictions::from_parquet("in", stored("out/in.parquet").into()).unwrap();
    assert_eq!(table.len(), 60);
    run("predict s3://bucket/run1 s3://bucket/in/ --output s3://bucket/out/in.csv")
        .refused(2, "s3://bucket/out/in.csv is there already");
    run("predict s3://bucket/run1 s3://bucket/in/ --overwrite --output s3://bucket/in/dark/000.png --format csv")
        .refused(2, "is one of the images");

    for output in
        ["shards/data/train-00000-of-00001.parquet", "shards/data/new.parquet", "shards/manifest.json"]
    {
        run(&format!("predict s3://bucket/run1 s3://bucket/shards/ --overwrite --format parquet --output s3://bucket/{output}"))
            .refused(2, "would be part of the dataset of shards s3://bucket/shards");
    }
    run("predict s3://bucket/run1 s3://bucket/in/ --explain s3://bucket/in/maps")
        .refused(2, "lies in s3://bucket/in");
    for folder in ["shards", "shards/data", "shards/data/maps"] {
        run(&format!("predict s3://bucket/run1 s3://bucket/in/dark/000.png --explain s3://bucket/{folder}"))
            .refused(2, "is part of the dataset of shards s3://bucket/shards");
    }
    run("verify s3://bucket/shards").done();
    run("predict s3://bucket/run1 s3://bucket/in/ --explain s3://bucket/maps").refused(3, rejected);
    assert_eq!(files(&server.root.join("maps")).len(), 60);

    // What eval and compare say of runs in the bucket is what they say of them on a disk.
    let said = run("compare s3://bucket/run1 s3://bucket/run2 --json").done().json();
    let local = place.run("compare run1 run2 --json").done().json();
    assert_eq!(said["runs"][1]["run"], "s3://bucket/run2");
    for key in ["evaluation", "classification_report"] {
        assert_eq!(said["runs"][1][key], local["runs"][1][key]);
    }
    let scored =
        "eval s3://bucket/run1 s3://bucket/in --split validation --out s3://bucket/scored --max-rejects 3";
    run(&format!("{scored} --json")).done();
    let bytes = stored("scored/predictions.parquet");
    assert!(!forebay::predictions::Predictions::from_parquet("scored", bytes.into()).unwrap().is_empty());
    run("compare s3://bucket/scored s3://bucket/run2 --split validation").done();
    run("compare s3://bucket/run1 s3://bucket/none.parquet")
        .refused(2, "s3://bucket/none.parquet: there is no such");
}

#[test]
fn a_wrong_secret_and_a_missing_bucket_get_one_line() {
    let server = Server::start();
    let wrong = server.place("another-secret-that-is-wrong");
    let endpoint = server.endpoint();
    for command in
        ["prepare s3://bucket/a s3://bucket/b", "inspect s3://bucket/a", "train s3://bucket/a --out run"]
    {
        let said = wrong.run(&format!("{command} {endpoint}")).refused(1, "AWS_SECRET_ACCESS_KEY");
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        assert!(!said.stderr.contains("another-secret"), "{}", said.stderr);
    }
    let place = server.place(SECRET);
    let said = place.run(&format!("inspect s3://nowhere/a {endpoint}"));
    assert!(said.code != 0 && said.stderr.contains("nowhere"), "{}", said.stderr);
    let none = Place::new();
    none.run("inspect s3://bucket/a").refused(2, "AWS_ACCESS_KEY_ID");
}

/// Passes everything on between a client and `server`, until `is_silent`: then nothing is answered, and nothing refused.
#[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
fn proxy(server: SocketAddr, is_silent: Arc<AtomicBool>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut upstream) = (client.unwrap(), TcpStream::connect(server).unwrap());
            let (mut request, mut asked) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut request, &mut asked));
            let is_silent = is_silent.clone();
            std::thread::spawn(move || {
                let mut answer = [0; 1 << 14];
                while let Ok(n @ 1..) = upstream.read(&mut answer) {
                    while is_silent.load(Ordering::SeqCst) {
                        std::thread::park();
                    }
                    client.write_all(&answer[..n]).unwrap_or_default();
                }
            });
        }
    });
    address
}

#[test]
fn a_terminated_run_does_not_wait_for_a_store_that_says_nothing() {
    let server = Server::start();
    let is_silent = Arc::new(AtomicBool::new(false));
    let place = server.place(SECRET);
    for index in 0..24u64 {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 16, 16, index);
    }
    copy(&place.path("in"), &server.root.join("in"));
    let endpoint = proxy(server.address, is_silent.clone());
    let train = format!(
        "train s3://bucket/in --endpoint http://{endpoint} --size 16 --batch-size 4 --epochs 100000 --out run"
    );
    let mut child = place.command(&train.split_whitespace().collect::<Vec<_>>()).spawn().unwrap();
    while !place.path("run/metrics.jsonl").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the run goes on");
        std::thread::yield_now();
    }
    is_silent.store(true, Ordering::SeqCst);
    let start = Instant::now();
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    // The store's own patience is half a minute for each of its tries.
    Said::of(child.wait_with_output().unwrap()).refused(143, "a checkpoint is in run");
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let more = train
        .replace("--epochs 100000", "--epochs 1")
        .replace(&endpoint.to_string(), &server.address.to_string());
    place.run(&format!("{more} --resume")).done();
}
