//! `--weights`: files of other programs, and the Hugging Face hub, imitated by a server on loopback.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::fixture::Place;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TRAIN: &str = "train in --model small --batch-size 8 --epochs 1 --split none";

/// Two classes of one colour each, 16 pixels a side.
pub(crate) fn draw(place: &Place) {
    std::fs::create_dir_all(place.path("in/dark")).unwrap();
    std::fs::create_dir_all(place.path("in/light")).unwrap();
    for index in 0..16u8 {
        let (class, level) = if index % 2 == 0 { ("dark", 40) } else { ("light", 200) };
        // No two alike, and none of one level.
        let image = image::RgbImage::from_fn(16, 16, |x, y| {
            image::Rgb([level + index + (x % 4) as u8 * 10, level + (y % 5) as u8 * 8, level + index])
        });
        image.save(place.path(&format!("in/{class}/{index}.png"))).unwrap();
    }
}

/// The weights of a short run, made in `place`.
pub(crate) fn weights(place: &Place) -> Vec<u8> {
    place.run(&format!("{TRAIN} --size 16 --out first")).done();
    std::fs::read(place.path("first/model.safetensors")).unwrap()
}

/// The same tensors without what our own files say about themselves.
pub(crate) fn of_another_program(bytes: &[u8]) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    safetensors::serialize(tensors.iter(), None).unwrap()
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What the server has, and how it misbehaves.
#[derive(Default)]
pub(crate) struct State {
    /// Files of the repository `o/n`, of `o/private`, which wants a token, and of the dataset `o/d`, which does too.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What large files are redirected to, where it is not their host itself.
    pub(crate) front: Option<SocketAddr>,
    /// So many requests are answered with 503 first.
    pub(crate) failures: usize,
    /// The next download of a large file ends after so many bytes.
    pub(crate) cut: Option<usize>,
    /// What a large file really holds, where that is not what was announced.
    pub(crate) rubbish: Option<Vec<u8>>,
    pub(crate) requests: Vec<Request>,
}

/// A hub, and a host of another origin that large files are redirected to.
pub(crate) struct Hub {
    pub(crate) hub: SocketAddr,
    pub(crate) storage: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Hub {
    #[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Hub {
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, storage) = (listen(), listen());
        let (hub_address, storage_address) = (hub.local_addr().unwrap(), storage.local_addr().unwrap());
        for (listener, is_hub) in [(hub, true), (storage, false)] {
            let state = state.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    std::thread::spawn(move || answer(stream, &state, is_hub, storage_address));
                }
            });
        }
        Hub { hub: hub_address, storage: storage_address, state }
    }

    /// A place whose runs see this hub and a cache of their own.
    pub(crate) fn connect(&self, place: &mut Place) {
        place.set("HF_ENDPOINT", &format!("http://{}", self.hub));
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Requests of a method for files of this name, on either host.
    fn requests(&self, method: &str, file: &str) -> Vec<Request> {
        let state = self.state();
        let asked = |request: &&Request| request.method == method && request.path.ends_with(file);
        state.requests.iter().filter(asked).cloned().collect()
    }
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// What Git calls a file of these bytes.
fn git(bytes: &[u8]) -> String {
    let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
    hexadecimal(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
}

fn answer(stream: TcpStream, state: &Mutex<State>, is_hub: bool, storage: SocketAddr) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_string);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_string()))
    });
    let request = Request { headers: headers.collect(), method, path };
    let mut state = state.lock().unwrap();
    state.requests.push(request.clone());
    let mut stream = stream;
    let mut respond = |status: &str, headers: &[(&str, String)], body: &[u8]| {
        let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        let _ = stream.write_all((text + "\r\n").as_bytes());
        if request.method != "HEAD" {
            let _ = stream.write_all(body);
        }
    };
    if state.failures > 0 {
        state.failures -= 1;
        return respond("503 Service Unavailable", &[("Content-Length", "0".into())], b"");
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let whole = parts.join("/");
    let name = match state.files.contains_key(&whole) {
        true => whole,
        false => parts.last().copied().unwrap_or_default().to_string(),
    };
    if !is_hub {
        let bytes = state.rubbish.clone().unwrap_or_else(|| state.files[&name].clone());
        let from = request.headers.get("range").map_or(0, |range| {
            range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
        });
        let end = state.cut.take().map_or(bytes.len(), |cut| cut.min(bytes.len()));
        let length = ("Content-Length", (bytes.len() - from).to_string());
        let range = ("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
        return match from {
            0 => respond("200 OK", &[length], &bytes[..end]),
            _ => respond("206 Partial Content", &[length, range], &bytes[from..end.max(from)]),
        };
    }
    let error = |code: &str| {
        vec![("Content-Length", "0".into()), ("X-Error-Code", code.into()), ("X-Repo-Commit", COMMIT.into())]
    };
    let has_token = request.headers.get("authorization").is_some_and(|value| value == "Bearer hf_secret");
    match parts.as_slice() {
        ["api", "datasets", "o", "d", ..] | ["datasets", "o", "d", ..] if !has_token => {
            respond("401 Unauthorized", &error("RepoNotFound"), b"")
        }
        ["api", "datasets", "o", "d", "revision", "main"] => {
            let body = format!("{{\"sha\": \"{COMMIT}\", \"private\": true}}");
            respond("200 OK", &[("Content-Length", body.len().to_string())], body.as_bytes());
        }
        ["api", "datasets", "o", "d", "revision", _] => {
            respond("404 Not Found", &error("RevisionNotFound"), b"")
        }
        // Two files a page.
        ["api", "datasets", "o", "d", "tree", COMMIT] => {
            let at =
                request.path.split("cursor=").nth(1).map_or(0, |cursor| cursor.parse::<usize>().unwrap());
            let entry = |(path, bytes): (&String, &Vec<u8>)| match path.ends_with(".tar") {
                true => serde_json::json!({"type": "file", "path": path, "size": bytes.len(), "oid": "0",
                    "lfs": {"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130}}),
                false => {
                    serde_json::json!({"type": "file", "path": path, "size": bytes.len(), "oid": git(bytes)})
                }
            };
            let mut page: Vec<_> = state.files.iter().skip(at).take(2).map(entry).collect();
            page.push(serde_json::json!({"type": "directory", "path": "a", "oid": "0", "size": 0}));
            let body = serde_json::Value::from(page).to_string();
            let mut headers = vec![("Content-Length", body.len().to_string())];
            if at + 2 < state.files.len() {
                let host = &request.headers["host"];
                let next = format!("http://{host}{path}?recursive=true&cursor={}", at + 2);
                headers.push(("Link", format!("<{next}>; rel=\"next\"")));
            }
            respond("200 OK", &headers, body.as_bytes());
        }
        ["datasets", "o", "d", "resolve", COMMIT, file @ ..] => {
            let file = file.join("/");
            match state.files.get(&file) {
                None => respond("404 Not Found", &error("EntryNotFound"), b""),
                Some(bytes) if file.ends_with(".tar") => {
                    let headers = [
                        ("Content-Length", "0".to_string()),
                        ("X-Repo-Commit", COMMIT.into()),
                        ("X-Linked-Etag", format!("\"{}\"", sha256(bytes))),
                        ("X-Linked-Size", bytes.len().to_string()),
                        ("Location", format!("http://{}/{file}", state.front.unwrap_or(storage))),
                    ];
                    respond("302 Found", &headers, b"");
                }
                Some(bytes) => {
                    let tag = ("ETag", format!("\"{}\"", git(bytes)));
                    let length = ("Content-Length", bytes.len().to_string());
                    respond("200 OK", &[tag, length, ("X-Repo-Commit", COMMIT.to_string())], bytes);
                }
            }
        }
        ["o", "gated", ..] => respond("403 Forbidden", &error("GatedRepo"), b""),
        ["o", "private", ..] if !has_token => respond("401 Unauthorized", &error("RepoNotFound"), b""),
        ["o", "n" | "private", "resolve", "main" | COMMIT, file]
        | ["timm", "resnet18.a1_in1k", "resolve", "main" | COMMIT, file] => match state.files.get(*file) {
            None => respond("404 Not Found", &error("EntryNotFound"), b""),
            // Small files are moved to a cache of the hub, whose answer names no commit.
            Some(_) if file.ends_with(".json") && !request.path.contains("cached") => {
                let place = format!("/{}/{}/resolve/main/{file}?cached", parts[0], parts[1]);
                let moved = [
                    ("Content-Length", "0".to_string()),
                    ("X-Repo-Commit", COMMIT.into()),
                    ("Location", place),
                ];
                respond("307 Temporary Redirect", &moved, b"");
            }
            Some(bytes) if file.ends_with(".json") => {
                let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
                let tag = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &blob);
                let tag = ("ETag", format!("\"{}\"", hexadecimal(tag.as_ref())));
                let length = ("Content-Length", bytes.len().to_string());
                respond("200 OK", &[tag, length], bytes);
            }
            Some(bytes) => {
                let tag = hexadecimal(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
                let headers = [
                    ("Content-Length", "0".to_string()),
                    ("X-Repo-Commit", COMMIT.into()),
                    ("X-Linked-Etag", format!("\"{tag}\"")),
                    ("X-Linked-Size", bytes.len().to_string()),
                    ("Location", format!("http://{}/{file}", state.front.unwrap_or(storage))),
                ];
                respond("302 Found", &headers, b"");
            }
        },
        ["o", "n", "resolve", ..] => respond("404 Not Found", &error("RevisionNotFound"), b""),
        _ => respond("401 Unauthorized", &error("RepoNotFound"), b""),
    }
}

/// A configuration as timm writes it, of images of 16 pixels cut out of 18.
pub(crate) fn timm_config() -> Vec<u8> {
    serde_json::json!({"architecture": "small", "num_classes": 2, "pretrained_cfg": {
        "input_size": [3, 16, 16], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}})
    .to_string()
    .into_bytes()
}

#[test]
fn a_repository_is_downloaded_once_and_its_images_are_prepared_as_its_weights_want() {
    let mut place = Place::new();
    draw(&place);
    let bytes = of_another_program(&weights(&place));
    let hub = Hub::start(&[("model.safetensors", &bytes), ("config.json", &timm_config())]);
    hub.connect(&mut place);
    let said = place.run(&format!("{TRAIN} --out run --weights hf:o/n")).done();
    assert!(said.stderr.contains("downloading model.safetensors of o/n"), "{}", said.stderr);
    let chain = String::from_utf8(place.files("run")["chain.json"].clone()).unwrap();
    let chain: serde_json::Value = serde_json::from_str(&chain).unwrap();
    let (whole, chain) = (&chain, &chain["chain"]);
    assert_eq!(chain["normalize"], serde_json::json!({"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}));
    let resize = &chain["resize"][0];
    assert_eq!((&resize["side"], &resize["crop_pct"]), (&16.into(), &0.875.into()));
    assert_eq!((&resize["filter"], &whole["weights"]["commit"]), (&"bicubic".into(), &COMMIT.into()));

    // As Python's library lays it out: a link from the commit to a blob that is named by its tag.
    let repository = place.path(".cache/huggingface/hub/models--o--n");
    let tag = hexadecimal(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let link = std::fs::read_link(repository.join(format!("snapshots/{COMMIT}/model.safetensors"))).unwrap();
    assert_eq!(link, std::path::PathBuf::from(format!("../../blobs/{tag}")));
    assert_eq!(std::fs::read(repository.join("blobs").join(tag)).unwrap(), bytes);

    // What is there is used without a request, and offline.
    let n = hub.state().requests.len();
    place.run(&format!("{TRAIN} --out again --weights hf:o/n")).done();
    assert_eq!(hub.state().requests.len(), n, "{:?}", hub.state().requests);
    place.set("HF_HUB_OFFLINE", "1");
    place.run(&format!("{TRAIN} --out offline --weights hf:o/n@{COMMIT}")).done();
    place.run(&format!("{TRAIN} --out none --weights hf:o/other")).refused(2, "HF_HUB_OFFLINE is set, and");

    // Other preparations need to be asked for twice.
    let other = format!("{TRAIN} --out other --weights hf:o/n --mean 0.4,0.4,0.4 --size 32");
    let said = place.run(&other).refused(2, "train.mean: [0.4, 0.4, 0.4] contradicts hf:o/n");
    assert!(said.stderr.contains("resize.size: 32 contradicts hf:o/n"), "{}", said.stderr);
    let said = place.run(&format!("{other} --std 0.01,0.01,0.01 --force")).done();
    let looked = "the first batch does not look like what pretrained weights are used to";
    assert!(said.stderr.contains(looked), "{}", said.stderr);
    // The resolved run file contradicts nothing.
    place.run("train --config run/config.toml --out resolved").done();
}

#[test]
fn a_plan_names_weights_of_another_network_a_run_folder_in_use_and_a_wrong_source_at_once() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let plan = "plan train missing --size 16";
    let said = place
        .run(&format!("{plan} --arch resnet18 --weights first/last.safetensors --out first"))
        .refused(2, "load first/last.safetensors: the file is for another network than resnet18");
    for line in ["first holds a run already", "there is no such folder"] {
        assert!(said.stderr.contains(line), "{line}: {}", said.stderr);
    }
    // Tensors that are not there, too.
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let lacking = tensors.iter().filter(|(name, _)| !name.starts_with("layer3"));
    place.write("part.safetensors", &safetensors::serialize(lacking, None).unwrap());
    let plan = "plan train in --size 16 --weights part.safetensors";
    place.run(plan).refused(2, "load part.safetensors: the file lacks");
    place.run(&format!("{plan} --force")).done();
    place.run("plan train in --size 16 --out other --resume").refused(2, "other holds no last.safetensors");
    place.run("plan train in --size 16 --out in/run").refused(2, "whose folders are classes");
    let before = place.files("first");
    place.run("plan train in --size 16 --out first --overwrite").done();
    place.run(&format!("{TRAIN} --size 16 --out first --resume").replace("train in", "plan train in")).done();
    assert!(place.files("first") == before && !place.path("other").exists(), "a plan writes nothing");
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_ended_and_a_server_that_fails_is_asked_again() {
    let mut place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let hub = Hub::start(&[("pytorch_model.bin", b"not asked for"), ("model.safetensors", &bytes)]);
    hub.connect(&mut place);
    hub.state().cut = Some(100_000);
    hub.state().failures = 2;
    place.run(&format!("{TRAIN} --out run --weights hf:o/n")).done();
    let ranges: Vec<Option<String>> = hub
        .requests("GET", "/model.safetensors")
        .iter()
        .filter(|request| request.path == "/model.safetensors")
        .map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_string())]);
    assert!(hub.requests("GET", "pytorch_model.bin").is_empty());
    // A part of an earlier run is gone on with; one that is rubbish is thrown away.
    for (part, first) in [(&bytes[..5000], 5000), (&[7u8; 3000][..], 3000)] {
        let blobs = place.path(".cache/huggingface/hub/models--o--n/blobs");
        let tag = hexadecimal(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
        std::fs::remove_file(blobs.join(&tag)).unwrap();
        std::fs::write(blobs.join(format!("{tag}.incomplete")), part).unwrap();
        hub.state().requests.clear();
        place.run(&format!("{TRAIN} --out run --overwrite --weights hf:o/n")).done();
        let asked = hub.requests("GET", "/model.safetensors");
        let range = asked.iter().find_map(|request| request.headers.get("range"));
        assert_eq!(range.map(String::as_str), Some(format!("bytes={first}-").as_str()));
        assert_eq!(std::fs::read(blobs.join(&tag)).unwrap(), bytes);
    }
}

#[test]
fn what_is_not_what_was_announced_is_thrown_away() {
    let mut place = Place::new();
    draw(&place);
    let hub = Hub::start(&[("model.safetensors", &[1; 5000])]);
    hub.connect(&mut place);
    hub.state().rubbish = Some(vec![2; 5000]);
    let run = format!("{TRAIN} --out run --weights hf:o/n");
    place.run(&run).refused(4, "model.safetensors of o/n is not what http://127.0.0.1");
    let left = place.files(".cache/huggingface/hub/models--o--n/blobs");
    assert!(left.values().all(Vec::is_empty), "{:?}", left.keys());
}

#[test]
fn the_token_goes_to_the_hub_only() {
    let mut place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let hub = Hub::start(&[("model.safetensors", &bytes)]);
    hub.connect(&mut place);
    let run = format!("{TRAIN} --out run --weights hf:o/private");
    place.run(&run).refused(2, "has no repository o/private, or it is private");
    place.write(".cache/huggingface/token", b"hf_secret\n");
    let said = place.run(&run).done();
    assert!(!said.stderr.contains("hf_secret") && !said.stdout.contains("hf_secret"));
    let state = hub.state();
    let sent: Vec<bool> = state
        .requests
        .iter()
        .filter(|request| request.path == "/model.safetensors")
        .map(|request| request.headers.contains_key("authorization"))
        .collect();
    assert_eq!(sent, [false], "the storage is another host");
}

#[test]
fn each_refusal_of_the_hub_is_one_line() {
    let mut place = Place::new();
    draw(&place);
    let hub = Hub::start(&[("README.md", b"nothing")]);
    hub.connect(&mut place);
    for (reference, code, words) in [
        ("hf:o/n", 2, "o/n at main holds no model.safetensors or pytorch_model.bin"),
        ("hf:o/n:x.safetensors", 2, "o/n at main holds no file x.safetensors"),
        ("hf:o/n@v9", 2, "o/n has no branch, tag or commit v9"),
        ("hf:o/gated", 2, "o/gated is gated: accept its terms at"),
        ("hf:o/missing", 2, "has no repository o/missing, or it is private"),
        ("hf:o", 2, "expected hf:OWNER/NAME"),
    ] {
        let said = place.run(&format!("{TRAIN} --out run --weights {reference}")).refused(code, words);
        assert_eq!(said.stderr.trim().lines().count(), 1, "{}", said.stderr);
    }
    // Nobody listens.
    place.set("HF_ENDPOINT", "http://127.0.0.1:9");
    let said = place.run(&format!("{TRAIN} --out run --weights hf:o/n")).refused(1, "without the network");
    assert_eq!(said.stderr.trim().lines().count(), 1, "{}", said.stderr);
}

#[test]
fn two_runs_download_a_file_once() {
    let mut place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let hub = Hub::start(&[("model.safetensors", &bytes)]);
    hub.connect(&mut place);
    let start = |out: &str| {
        let arguments = format!("{TRAIN} --out {out} --weights hf:o/n");
        place.command(&arguments.split(' ').collect::<Vec<_>>()).spawn().unwrap()
    };
    for child in [start("a"), start("b"), start("c")] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let stored = hub.requests("GET", "model.safetensors");
    assert_eq!(stored.iter().filter(|request| request.path == "/model.safetensors").count(), 1);
}

/// What `torch.save` writes for a state dict under `state_dict`, with the names of `DataParallel`.
fn pth(bytes: &[u8]) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |value: usize| [b"J", &(value as u32).to_le_bytes()[..]].concat();
    let tuple = |values: &[usize]| {
        let items: Vec<u8> = values.iter().flat_map(|value| number(*value)).collect();
        [b"(".to_vec(), items, b"t".to_vec()].concat()
    };
    let mut pickle =
        [b"\x80\x02}".to_vec(), text("epoch"), number(3), b"s".to_vec(), text("state_dict")].concat();
    pickle.extend_from_slice(b"ccollections\nOrderedDict\n)R(");
    let mut files: Vec<(String, Vec<u8>)> = vec![("archive/version".into(), b"3\n".to_vec())];
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        let shape = tensor.shape();
        let count: usize = shape.iter().product();
        let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        pickle.extend(text(&format!("module.{name}")));
        pickle.extend_from_slice(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend_from_slice(b"ctorch\nFloatStorage\n");
        pickle.extend([text(&index.to_string()), text("cpu"), number(count)].concat());
        pickle.extend_from_slice(b"tQ");
        pickle.extend([number(0), tuple(shape), tuple(&strides)].concat());
        pickle.extend_from_slice(b"\x89ccollections\nOrderedDict\n)RtR");
        files.push((format!("archive/data/{index}"), tensor.data().to_vec()));
    }
    pickle.extend_from_slice(b"us.");
    files.push(("archive/data.pkl".into(), pickle));
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in &files {
        let at = (archive.len() as u32).to_le_bytes();
        let size = (data.len() as u32).to_le_bytes();
        let shared = [&[0; 14][..], &size, &size, &(name.len() as u16).to_le_bytes(), &[0; 2]].concat();
        archive.extend([b"PK\x03\x04", &shared[..], name.as_bytes(), data].concat());
        directory.extend([b"PK\x01\x02\0\0", &shared[..], &[0; 10], &at, name.as_bytes()].concat());
    }
    let n = (files.len() as u16).to_le_bytes();
    let (length, at) = ((directory.len() as u32).to_le_bytes(), (archive.len() as u32).to_le_bytes());
    archive.extend([directory.as_slice(), b"PK\x05\x06\0\0\0\0", &n, &n, &length, &at, &[0; 2]].concat());
    archive
}

#[test]
fn a_pth_file_gives_the_weights_of_the_safetensors_file() {
    let place = Place::new();
    draw(&place);
    let bytes = of_another_program(&weights(&place));
    place.write("w.safetensors", &bytes);
    place.write("w.pth", &pth(&bytes));
    let mut trained = Vec::new();
    for file in ["w.safetensors", "w.pth"] {
        let out = file.replace('.', "-");
        let said = place.run(&format!("{TRAIN} --size 16 --out {out} --weights {file}")).done();
        assert!(said.stderr.contains("nothing tells how the images of"), "{}", said.stderr);
        let kept = std::fs::read(place.path(&format!("{out}/last.safetensors"))).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&kept).unwrap();
        let digest = |data: &[u8]| blake3::hash(data).to_hex().to_string();
        let digests: BTreeMap<String, String> =
            tensors.iter().map(|(name, tensor)| (name.to_string(), digest(tensor.data()))).collect();
        trained.push((digests, said.stderr));
    }
    assert_eq!(trained[0].0, trained[1].0);
    assert!(trained[1].1.contains("(from `state_dict` of the file)"), "{}", trained[1].1);
}

#[test]
fn files_that_hold_no_weights_of_this_network_are_refused_in_a_line() {
    let place = Place::new();
    draw(&place);
    let whole = pth(&of_another_program(&weights(&place)));
    place.write("cut.pth", &whole[..whole.len() / 2]);
    place.write("hostile.pth", b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.");
    place.write("pointer.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
    place.write("resnet50-0676ba61.pth", b"PK\x03\x04 not it");
    for (file, code, words) in [
        ("cut.pth", 2, "cut.pth: a zip archive that is cut short or damaged"),
        ("hostile.pth", 2, "hostile.pth: a bare pickle"),
        ("pointer.safetensors", 2, "a pointer of Git LFS"),
        ("resnet50-0676ba61.pth", 4, "its name promises 0676ba61"),
    ] {
        place.run(&format!("{TRAIN} --size 16 --out run --weights {file}")).refused(code, words);
    }
    let said = place
        .run(&format!("{TRAIN} --size 32 --out run --weights first/model.safetensors"))
        .refused(2, "resize.size: 32 contradicts first/model.safetensors");
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    let other = TRAIN.replace("--model small", "--model resnet18");
    place
        .run(&format!("{other} --out run --weights first/model.safetensors"))
        .refused(2, "says that it is of small, not of resnet18");
}

#[test]
fn the_licence_of_the_weights_is_that_of_the_model_in_words_of_timm() {
    let mut place = Place::new();
    draw(&place);
    let train = "train in --arch resnet18 --batch-size 16 --epochs 1 --split none";
    place.run(&format!("{train} --size 16 --out first")).done();
    let config = |run: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(place.path(&format!("{run}/config.json"))).unwrap()).unwrap()
    };
    assert!(config("first")["pretrained_cfg"].get("license").is_none());
    let bytes = std::fs::read(place.path("first/model.safetensors")).unwrap();
    let described = String::from_utf8(timm_config()).unwrap().replace("small", "resnet18");
    let files = [("model.safetensors", &*of_another_program(&bytes)), ("config.json", described.as_bytes())];
    let hub = Hub::start(&files);
    place.set("HF_ENDPOINT", &format!("http://{}", hub.hub));
    place.run(&format!("{train} --out run --weights hf:timm/resnet18.a1_in1k")).done();
    let config: serde_json::Value = serde_json::from_slice(&place.files("run")["config.json"]).unwrap();
    assert_eq!(config["pretrained_cfg"]["license"], "apache-2.0");
    // What is exported of it says so too, whether it is the run or the weights themselves.
    for source in ["run", "hf:timm/resnet18.a1_in1k --arch resnet18"] {
        let said = place.run(&format!("export {source} --output model.onnx --overwrite --json")).done();
        assert_eq!(said.json()["size"], 16);
        assert!(holds(&place, "model.onnx", "apache-2.0"), "{source}");
    }
}

/// True when the file has these words in it.
fn holds(place: &Place, file: &str, words: &str) -> bool {
    let bytes = std::fs::read(place.path(file)).unwrap();
    bytes.windows(words.len()).any(|window| window == words.as_bytes())
}

#[test]
fn a_run_is_exported_with_what_it_knows_and_the_same_bytes_each_time() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let said = place.run("export first --output out/model.onnx --json").done().json();
    assert_eq!((&said["arch"], &said["classes"], &said["size"]), (&"small".into(), &2.into(), &16.into()));
    assert_eq!(
        said["bytes"].as_u64().unwrap(),
        std::fs::metadata(place.path("out/model.onnx")).unwrap().len()
    );
    for words in
        [r#"["dark","light"]"#, "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]", "forebay", "logits"]
    {
        assert!(holds(&place, "out/model.onnx", words), "{words}");
    }
    // Nothing is replaced unasked, and the same weights are the same file.
    let exported = std::fs::read(place.path("out/model.onnx")).unwrap();
    place.run("export first --output out/model.onnx").refused(2, "out/model.onnx is there already");
    place.run("export first --output out/model.onnx --overwrite").done();
    // What is exported, and what else the run holds, is no output; nor is a device.
    let before = place.files("first");
    for output in ["first/model.safetensors", "first/../first/last.safetensors", "first/config.json"] {
        place
            .run(&format!("export first --output {output} --overwrite"))
            .refused(2, "choose another --output");
    }
    std::process::Command::new("mkfifo").arg(place.path("pipe")).status().unwrap();
    place.run("export first --output pipe --overwrite").refused(2, "it is a pipe or a device");
    let forward =
        "forward small --weights first/model.safetensors --input x.safetensors --overwrite --output";
    place
        .run(&format!("{forward} first/model.safetensors"))
        .refused(2, "which is read: choose another --output");
    place.run(&format!("{forward} first/last.safetensors")).refused(2, "is a file of a run: choose another");
    let events = before.keys().find(|name| name.starts_with("events.")).unwrap();
    place.run(&format!("{forward} first/{events}")).refused(2, "is a file of a run: choose another");
    for output in ["first", "out/", ".", "..", "x#1", "hf:timm/x"] {
        place.run(&format!("{forward} {output}")).refused(2, "choose another --output");
        place
            .run(&format!("export first --overwrite --output {output}"))
            .refused(2, "choose another --output");
    }
    assert!(place.files("first") == before);
    // A file by another name is the same file, and so is the run file.
    place.write("own.safetensors", &before["model.safetensors"]);
    std::os::unix::fs::symlink("own.safetensors", place.path("link.safetensors")).unwrap();
    place.run("export link.safetensors --output own.safetensors --overwrite").refused(2, "which is read");
    place.run("export own.safetensors --output link.safetensors --overwrite").refused(2, "which is read");
    place.write("export.toml", b"export.output = \"export.toml\"\n");
    place.run("export first --config export.toml --overwrite").refused(2, "which is read");
    assert_eq!(std::fs::read(place.path("own.safetensors")).unwrap(), before["model.safetensors"]);
    let said = place.run("export first/model.safetensors --output again.onnx").done();
    let line = "images [batch, 3, 16, 16], normalised -> logits [batch, 2]";
    assert!(said.stdout.contains(line), "{}", said.stdout);
    for name in ["out/model.onnx", "again.onnx"] {
        assert!(std::fs::read(place.path(name)).unwrap() == exported, "{name}");
    }
    // Weights of another program say neither what they are of, nor for which images.
    place.write("other.safetensors", &of_another_program(&bytes));
    place.run("export other.safetensors --output other.onnx").refused(2, "give --arch, one of small, vgg11");
    place.run("export other.safetensors --arch small --size 33 --output other.onnx").done();
    assert!(!holds(&place, "other.onnx", "0.485"));
    // A hidden layer in the head stands in the options of the run.
    place.run(&format!("{TRAIN} --size 16 --out wide --head-width 8 --head-activation gelu")).done();
    place.run("export wide --output wide.onnx").done();
    assert!(holds(&place, "wide.onnx", "Erf"));
}

#[test]
fn what_cannot_be_exported_is_one_line() {
    let place = Place::new();
    draw(&place);
    let mut bytes = weights(&place);
    place.write("file", b"not a folder");
    place.write("other.safetensors", &of_another_program(&bytes));
    let refused = |arguments: &str, code: i32, words: &str| {
        let said = place.run(&format!("export {arguments}")).refused(code, words);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    };
    refused("in --output m.onnx", 2, "in holds no model.safetensors, so it is no run folder");
    refused("nowhere --output m.onnx", 2, "nowhere: there is no such run folder or weights file");
    refused("file --arch small --output m.onnx", 2, "cannot read file: not a whole safetensors file");
    refused("first", 2, "export needs --output FILE");
    refused("--output m.onnx", 2, "export needs a SOURCE");
    refused("first --output out/", 2, "out/ is a folder, and not a file in one");
    refused("first --output file/m.onnx", 2, "file is a file, not a folder");
    refused("first --output m.onnx --arch resnet21", 2, "--arch");
    refused("first --output m.onnx --arch resnet18", 2, "is of small, not of resnet18; leave out --arch");
    refused("other.safetensors --output m.onnx --arch vgg11", 2, "another network than vgg11");
    refused("first --output m.onnx --size 0", 2, "--size");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    place.write("first/model.safetensors", &bytes);
    refused("first --output m.onnx", 4, "first/model.safetensors is damaged");
    place.write("first/model.safetensors", &bytes[..100]);
    refused("first --output m.onnx", 4, "first/model.safetensors is damaged");
    assert!(!place.path("m.onnx").exists());
}

/// The bytes with one of them flipped, `back` bytes before the end: the value of a tensor.
fn flipped(bytes: &[u8], back: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = bytes.len() - back;
    bytes[place] ^= 1;
    bytes
}

#[test]
fn damaged_weights_of_a_run_are_refused_by_whoever_takes_them() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    // In a tensor, and in the mark of the checksum.
    let mark = bytes.windows(6).position(|window| window == b"blake3").unwrap();
    for (n, damaged) in [flipped(&bytes, 100), flipped(&bytes, bytes.len() - mark)].iter().enumerate() {
        place.write("first/model.safetensors", damaged);
        place.write("w.safetensors", damaged);
        place.write("none", b"");
        for command in [
            format!("{TRAIN} --out run{n} --weights first/model.safetensors"),
            format!("{TRAIN} --size 16 --out run{n} --weights w.safetensors"),
            "export first --output a.onnx".to_string(),
            "export w.safetensors --arch small --output a.onnx".to_string(),
            "forward small --weights w.safetensors --input none --output y".to_string(),
        ] {
            place.run(&command).refused(4, "is damaged");
        }
    }
}

#[test]
fn a_file_of_the_cache_that_is_not_what_its_name_says_is_refused() {
    let mut place = Place::new();
    draw(&place);
    let bytes = of_another_program(&weights(&place));
    let hub = Hub::start(&[("model.safetensors", &bytes), ("config.json", &timm_config())]);
    hub.connect(&mut place);
    place.run(&format!("{TRAIN} --out run --weights hf:o/n")).done();
    let tag = hexadecimal(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
    let blob = place.path(".cache/huggingface/hub/models--o--n/blobs").join(tag);
    std::fs::write(&blob, flipped(&bytes, 100)).unwrap();
    let said = place.run(&format!("{TRAIN} --out again --weights hf:o/n"));
    said.refused(4, "is not what it was when it was downloaded: delete it");
}

/// The tensors of a safetensors file, changed.
fn changed(bytes: &[u8], change: impl Fn(&str, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let kept: Vec<_> = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            let mut data = tensor.data().to_vec();
            change(name, &mut data).then(|| (name, tensor.dtype(), tensor.shape().to_vec(), data))
        })
        .collect();
    let views = kept.iter().map(|(name, dtype, shape, data)| {
        (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn weights_that_do_not_fill_the_network_are_refused_unless_forced() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    place.write("gap.safetensors", &changed(&bytes, |name, _| name != "layer2.0.conv1.weight"));
    place.write("still.safetensors", &changed(&bytes, |name, _| !name.contains("running_")));
    for (file, words) in [
        ("gap.safetensors", "the first is `layer2.0.conv1.weight`"),
        ("still.safetensors", "running statistics"),
    ] {
        let run = format!("{TRAIN} --size 16 --out run --weights {file}");
        let said = place.run(&run).refused(2, words);
        assert!(said.stderr.contains("--force"), "{}", said.stderr);
        // What has no --force promises none, and names the file.
        let said =
            place.run(&format!("export {file} --arch small --size 16 --output a.onnx")).refused(2, words);
        assert!(
            !said.stderr.contains("--force") && said.stderr.contains(&format!("{file}: ")),
            "{}",
            said.stderr
        );
        place
            .run("train in --model small --find-lr --size 16 --weights gap.safetensors")
            .refused(2, "lacks 1");
        place.run(&format!("{run} --force")).done();
        std::fs::remove_dir_all(place.path("run")).unwrap();
    }
}

#[test]
fn a_pretrained_head_that_is_worse_than_guessing_is_named_before_training() {
    let place = Place::new();
    draw(&place);
    place.run("train in --model small --batch-size 8 --epochs 20 --split none --size 16 --out first").done();
    let bytes = std::fs::read(place.path("first/model.safetensors")).unwrap();
    place.write("whole.safetensors", &of_another_program(&bytes));
    // The two classes in the other order, as another program may have sorted them.
    let permuted = changed(&bytes, |name, data| {
        if name.starts_with("fc.") {
            let half = data.len() / 2;
            data.rotate_left(half);
        }
        true
    });
    place.write("permuted.safetensors", &permuted);
    for (file, is_named) in [("whole.safetensors", false), ("permuted.safetensors", true)] {
        for doctor in ["quick", "off"] {
            let run = format!("{TRAIN} --size 16 --doctor {doctor} --overwrite --out run --weights {file}");
            let said = place.run(&run).done();
            let line = said.stderr.lines().find(|line| line.contains("worse than guessing"));
            assert_eq!(line.is_some(), is_named, "{file}: {}", said.stderr);
            let says = |words: &str| line.is_none_or(|line| line.contains(words));
            assert!(says("guessing among 2 classes has 0.69") && says("another order"), "{line:?}");
        }
    }
}

#[test]
fn weights_that_are_no_numbers_or_whole_ones_are_refused_before_a_run_is_replaced() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let before = place.files("first");
    let broken = changed(&bytes, |name, data| {
        if name == "layer2.0.conv1.weight" {
            data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        true
    });
    place.write("nan.safetensors", &broken);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let counted = tensors.iter().map(|(name, tensor)| {
        let dtype = if name.contains("conv") { safetensors::Dtype::I32 } else { tensor.dtype() };
        (name, safetensors::tensor::TensorView::new(dtype, tensor.shape().to_vec(), tensor.data()).unwrap())
    });
    place.write("whole.safetensors", &safetensors::serialize(counted, None).unwrap());
    for (file, words) in [
        ("nan.safetensors", "`layer2.0.conv1.weight` holds values that are no finite numbers"),
        ("whole.safetensors", "is a tensor of whole numbers, as quantised ones are, which is not read"),
    ] {
        let train = format!("{TRAIN} --size 16 --out first --overwrite --weights {file}");
        place.run(&train).refused(2, words);
        assert!(place.files("first") == before, "{file}");
        place.run(&format!("export {file} --arch small --output a.onnx")).refused(2, words);
    }
}

#[test]
fn weights_are_refused_where_the_description_beside_them_names_another_network() {
    let place = Place::new();
    draw(&place);
    place.write("hub/model.safetensors", &of_another_program(&weights(&place)));
    let config = String::from_utf8(timm_config()).unwrap();
    place.write("hub/config.json", config.replace("small", "efficientnet_b1").as_bytes());
    let run = format!("{TRAIN} --out run --weights hub/model.safetensors");
    place.run(&run).refused(2, "is of efficientnet_b1, which is no network here");
    place
        .run("export hub/model.safetensors --arch small --output a.onnx")
        .refused(2, "is of efficientnet_b1");
    place.run(&format!("{run} --force")).done();
}

#[test]
fn a_network_that_gives_no_numbers_is_not_scored() {
    let place = Place::new();
    draw(&place);
    let bytes = weights(&place);
    let broken = changed(&bytes, |name, data| {
        if name == "bn1.running_var" {
            data[..4].copy_from_slice(&(-1f32).to_le_bytes());
        }
        true
    });
    place.write("nan.safetensors", &broken);
    // A variance below 0 has no root. A step normalises by its own batch, and sees nothing of it.
    let run = "train in --model small --size 16 --batch-size 4 --epochs 1 --recipe plain --split 0.5,0.5,0 --out run";
    let said = place.run(&format!("{run} --weights nan.safetensors"));
    said.refused(1, "cannot score the validation images: the network gives no numbers for");
    assert!(!place.path("run/model.safetensors").exists(), "no epoch was the best");
}

#[test]
fn a_split_of_which_no_image_can_be_read_has_no_score() {
    let place = Place::new();
    draw(&place);
    let split = "--size 16 --split 0.5,0.5,0 --max-rejects 1.0";
    place.run(&format!("prepare in shards {split}")).done();
    let images = place.files("in");
    for path in place.files("shards").keys().filter(|name| name.starts_with("data/validation")) {
        let shard = ids_of(&place.path(&format!("shards/{path}")));
        for id in shard {
            // Of the same size, so that it is still the same dataset.
            place.write(&format!("in/{id}"), &vec![0; images[&id].len()]);
        }
    }
    let run = format!("train in --model small --batch-size 4 --epochs 2 {split} --out run");
    place.run(&run).refused(3, "no validation image could be read: there is nothing to score");
    assert!(!place.path("run/model.safetensors").exists(), "no epoch was the best");
    // What was trained is kept: once the images are mended, the run goes on with its validation.
    for (name, bytes) in &images {
        place.write(&format!("in/{name}"), bytes);
    }
    place.run(&format!("{run} --resume")).done();
    place.run(&format!("train in --model small --batch-size 4 --epochs 2 {split} --out whole")).done();
    let model = "model.safetensors";
    assert!(place.files("run")[model] == place.files("whole")[model], "no step was done twice");
}

/// The ids of the samples of a shard.
fn ids_of(shard: &std::path::Path) -> Vec<String> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let file = SerializedFileReader::new(std::fs::File::open(shard).unwrap()).unwrap();
    let rows = file.get_row_iter(None).unwrap();
    let id = |row: parquet::record::Row| {
        let id = row.get_column_iter().find(|(name, _)| *name == "id").map(|(_, value)| value.to_string());
        id.expect("a shard has ids").trim_matches('"').to_string()
    };
    rows.map(|row| id(row.unwrap())).collect()
}

#[test]
fn classes_are_not_weighed_where_the_shards_are_balanced_already() {
    let place = Place::new();
    draw(&place);
    for index in 1..12u8 {
        std::fs::remove_file(place.path(&format!("in/light/{}.png", 2 * (index / 2) + 1))).ok();
    }
    place.run("prepare in shards --size 16 --split none --balance over").done();
    let run = "train shards --model small --batch-size 8 --epochs 1 --out run --class-weights sqrt";
    place.run(run).refused(2, "train.class_weights: the shards are balanced already");
    place.run(&format!("{run} --force")).done();
}
