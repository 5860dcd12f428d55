//! What a source can hold and what a server can answer, and that neither hides a sample nor costs more than one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use crate::fixture::{Place, Said};

/// What a server got: the first line of a request and its headers, in lower case.
#[derive(Clone, Debug)]
struct Asked {
    /// Path and query.
    target: String,
    headers: String,
}

type Answer = (u16, Vec<u8>);

/// A bucket whose every answer is written by a test.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    #[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
    fn start(answer: impl Fn(&str, usize) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let heard = asked.clone();
        // One request at a time; the thread ends with the process of the tests.
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut reader = BufReader::new(socket.try_clone().unwrap());
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
                let length = head.to_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<u64>().ok())
                });
                let _ = reader.take(length.unwrap_or(0)).read_to_end(&mut Vec::new());
                let Some(line) = head.lines().next().filter(|line| !line.is_empty()) else { continue };
                let target = line.split(' ').nth(1).unwrap_or_default().to_string();
                let nth = {
                    let mut heard = heard.lock().unwrap();
                    let before = heard.iter().filter(|asked| asked.target == target).count();
                    heard.push(Asked { target: target.clone(), headers: head.to_lowercase() });
                    before
                };
                let (status, body) = answer(&target, nth);
                let is_head = line.starts_with("HEAD");
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} S\r\nContent-Length: {length}\r\nETag: \"e\"\r\n\
                     Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\nConnection: close\r\n\r\n"
                );
                let _ = socket.write_all(head.as_bytes());
                if !is_head {
                    let _ = socket.write_all(&body);
                }
            }
        });
        Server { address, asked }
    }

    fn place(&self) -> Place {
        let mut place = Place::new();
        place.set("AWS_ACCESS_KEY_ID", "key-id");
        place.set("AWS_SECRET_ACCESS_KEY", "a-secret");
        place.set("AWS_ENDPOINT_URL", &format!("http://{}", self.address));
        place
    }
}

/// A page of a listing: keys with their sizes, and how to go on.
fn page(objects: &[(&str, usize)], next: Option<&str>) -> Answer {
    let contents: String = objects
        .iter()
        .map(|(key, bytes)| format!("<Contents><Key>{key}</Key><Size>{bytes}</Size><ETag>e</ETag><LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"))
        .collect();
    let next = next.map_or("<IsTruncated>false</IsTruncated>".to_string(), |token| {
        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")
    });
    (
        200,
        format!("<?xml version=\"1.0\"?><ListBucketResult>{contents}{next}</ListBucketResult>").into_bytes(),
    )
}

fn missing() -> Answer {
    (404, b"<Error><Code>NoSuchKey</Code></Error>".to_vec())
}

/// A PNG of 2 x 2 pixels.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    image::RgbImage::from_pixel(2, 2, image::Rgb([9, 8, 7]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn an_odd_key_of_a_bucket_is_a_reject_and_hides_no_other() {
    let size = png().len();
    let server = Server::start(move |target, _| match target {
        _ if target.contains("list-type=2") => page(
            &[
                ("a//x.png", size),
                ("./z.png", size),
                ("a/1.png", size),
                ("a/next\u{85}line.png", size),
                ("b/1.png", size),
                // What a program that shows folders leaves in an empty one.
                ("empty/", 0),
                ("hidden/.keep", 0),
            ],
            None,
        ),
        _ if target.ends_with(".png") => (200, png()),
        _ => missing(),
    });
    let said = server.place().run("inspect s3://bucket --json").done().json();
    assert_eq!(said["found"], 5, "{said}");
    assert_eq!(said["rejects"].as_array().unwrap().len(), 2, "{said}");
    let classes: Vec<&str> =
        said["classes"].as_array().unwrap().iter().map(|class| class[0].as_str().unwrap()).collect();
    assert_eq!(classes, ["a", "b", "empty", "hidden"]);
    let text = said.to_string();
    assert!(text.contains("a//x.png") && text.contains("./z.png"), "{said}");
}

#[test]
fn a_page_answered_with_a_web_page_is_asked_for_again_and_loses_nothing() {
    let size = png().len();
    let server = Server::start(move |target, nth| match target {
        _ if target.contains("continuation-token=two") && nth == 0 => (200, b"<html>Log in</html>".to_vec()),
        _ if target.contains("continuation-token=two") && nth == 1 => {
            (200, b"<Error><Code>InternalError</Code></Error>".to_vec())
        }
        // S3 says so where it did not get the whole request in time.
        _ if target.contains("continuation-token=two") && nth == 2 => {
            (400, b"<Error><Code>RequestTimeout</Code></Error>".to_vec())
        }
        _ if target.contains("continuation-token=two") => page(&[("b/1.png", size)], None),
        _ if target.contains("list-type=2") => page(&[("a/1.png", size)], Some("two")),
        _ if target.ends_with(".png") => (200, png()),
        _ => missing(),
    });
    let said = server.place().run("inspect s3://bucket --json").done().json();
    assert_eq!((&said["found"], &said["classes"][1][1]), (&2.into(), &1.into()), "{said}");
}

#[test]
fn a_listing_that_repeats_itself_is_an_error() {
    let twice = Server::start(|target, _| match target {
        _ if target.contains("list-type=2") => page(&[("a/1.png", 1), ("a/1.png", 1)], None),
        _ => missing(),
    });
    twice.place().run("inspect s3://bucket").refused(1, "the server lists a key twice: a/1.png");
    let again = Server::start(|target, nth| match target {
        _ if target.contains("list-type=2") => {
            page(&[(&format!("a/{}{nth}.png", target.len()), 1)], Some("again"))
        }
        _ => missing(),
    });
    again.place().run("inspect s3://bucket").refused(1, "a continuation token came twice");
}

#[test]
fn an_image_that_is_not_as_long_as_listed_ends_the_run_and_becomes_no_sample() {
    let server = Server::start(|target, _| match target {
        _ if target.contains("list-type=2") => page(&[("a/1.png", 500), ("b/1.png", 500)], None),
        _ if target.ends_with(".png") => (200, png()),
        _ => missing(),
    });
    let bytes = png().len();
    server
        .place()
        .run("inspect s3://bucket")
        .refused(1, &format!("{bytes} bytes came where 500 were listed"));
    let once = Server::start(|target, nth| match target {
        _ if target.contains("list-type=2") => page(&[("a/1.png", png().len())], None),
        _ if target.ends_with(".png") && nth == 0 => (200, png()[..20].to_vec()),
        // Something between here and the bucket, which has no code of S3.
        _ if target.ends_with(".png") && nth == 1 => (403, b"<html>no</html>".to_vec()),
        _ if target.ends_with(".png") => (200, png()),
        _ => missing(),
    });
    let said = once.place().run("inspect s3://bucket --json").done().json();
    assert_eq!((&said["found"], said["rejects"].as_array().unwrap().len()), (&1.into(), 0), "{said}");
}

/// A server that says nothing keeps nobody: the first Ctrl-C ends a command that only plans or looks.
#[test]
fn the_first_ctrl_c_ends_the_wait_for_a_silent_server_in_every_command() {
    for command in [
        "inspect s3://b",
        "plan prepare s3://b out",
        "prepare s3://b out",
        "train s3://b --out run",
        "bench s3://b",
        "verify s3://b",
        "export s3://b/run --output m.onnx",
    ] {
        let server = Server::start(|_, _| {
            loop {
                std::thread::park();
            }
        });
        let place = server.place();
        let arguments: Vec<&str> = command.split(' ').collect();
        let mut child = place.command(&arguments).spawn().unwrap();
        while server.asked.lock().unwrap().is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "{command} ended before it asked");
            std::thread::yield_now();
        }
        let id = child.id().to_string();
        std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
        let said = Said::of(child.wait_with_output().unwrap());
        assert_eq!(said.code, 130, "{command}: {}", said.stderr);
        assert!(said.stderr.contains("forebay: interrupted by Ctrl-C"), "{command}: {}", said.stderr);
        assert!(!said.stderr.contains("panicked"), "{command}: {}", said.stderr);
    }
}

#[test]
fn an_empty_variable_is_not_sent() {
    let server = Server::start(|target, _| match target {
        _ if target.contains("list-type=2") => page(&[("a/1.png", png().len())], None),
        _ if target.ends_with(".png") => (200, png()),
        _ => missing(),
    });
    let mut place = server.place();
    for (name, value) in [
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_REGION", " "),
        ("AWS_DEFAULT_REGION", "eu-west-7"),
        ("AWS_ENDPOINT_URL_S3", ""),
        ("AWS_ACCESS_KEY_ID", "key-id\n"),
    ] {
        place.set(name, value);
    }
    place.run("inspect s3://bucket").done();
    let asked = server.asked.lock().unwrap();
    assert!(asked.len() > 1);
    for Asked { headers, .. } in asked.iter() {
        assert!(!headers.contains("x-amz-security-token"), "{headers}");
        assert!(headers.contains("credential=key-id/") && headers.contains("/eu-west-7/s3/"), "{headers}");
    }
}

#[test]
fn a_bad_place_or_variable_is_one_line_and_a_usage_error() {
    let refused = |variables: &[(&str, &str)], arguments: &[&str], text: &str| {
        let mut place = Place::new();
        place.set("AWS_ACCESS_KEY_ID", "key-id");
        place.set("AWS_SECRET_ACCESS_KEY", "geheimes");
        variables.iter().for_each(|(name, value)| place.set(name, value));
        let said = place.run_with(&[&["inspect"], arguments].concat()).refused(2, text);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        assert!(!said.stderr.contains("geheim"), "{}", said.stderr);
    };
    refused(&[], &["s3://bucket/x", "--endpoint", "localhost:9000"], "write http://localhost:9000");
    refused(&[], &["s3://my bucket/x"], "my bucket is no name of a bucket");
    refused(&[], &["s3://bucket/x", "--region", "eu west"], "the region holds white space");
    refused(&[], &["s3://bucket/x", "--endpoint", "http://me:geheim@host"], "may hold no credentials");
    refused(&[("AWS_ENDPOINT_URL", "nowhere")], &["s3://bucket/x"], "AWS_ENDPOINT_URL nowhere has no scheme");
    refused(&[("AWS_ACCESS_KEY_ID", "key\nid")], &["s3://bucket/x"], "AWS_ACCESS_KEY_ID holds white space");
    refused(&[("AWS_SESSION_TOKEN", "geheim is")], &["s3://bucket/x"], "AWS_SESSION_TOKEN holds white space");
}

#[test]
fn a_leading_tilde_is_the_home_folder_wherever_a_place_is_given() {
    let place = Place::new();
    for name in ["home/a/1.png", "home/a/2.png", "home/b/1.png"] {
        place.write_png(name, 8, 8, name.len() as u64);
    }
    place.write("run.toml", b"dest = \"~/from file\"\n");
    place.run_with(&["inspect", "~/home"]).done();
    let prepare = ["prepare", "~/home", "--split", "none", "--size", "8"];
    place.run_with(&[&prepare[..], &["--config=~/run.toml"]].concat()).done();
    place.run_with(&[&prepare[..], &["--set", "dest=~/from set"]].concat()).done();
    for dest in ["from file", "from set"] {
        assert!(place.path(dest).join("manifest.json").exists(), "{dest}");
    }
    assert!(!place.path("~").exists());
}

#[test]
fn a_named_pipe_in_a_source_is_passed_over_or_refused_and_never_waited_for() {
    let place = Place::new();
    for name in ["images/a/1.png", "images/b/1.png"] {
        place.write_png(name, 8, 8, 0);
    }
    let pipe = |name: &str| {
        assert!(std::process::Command::new("mkfifo").arg(place.path(name)).status().unwrap().success());
    };
    pipe("images/a/2.png");
    let said = place.run("inspect images --json").done().json();
    assert_eq!((&said["found"], &said["ignored"]["(not a file)"]), (&2.into(), &1.into()), "{said}");
    // In the place of a manifest it is no manifest; what it is must be said, since a run would replace it.
    pipe("images/manifest.json");
    let said = place.run("train images --out run --epochs 1");
    assert!(said.code != 101 && said.stderr.contains("manifest.json"), "{}", said.stderr);
}
