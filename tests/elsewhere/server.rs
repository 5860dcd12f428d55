//! A server that keeps its objects in memory and speaks as Google Cloud Storage, Azure, S3 and plain web servers do, as far
//! as the program asks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query, as they were sent.
    pub(crate) target: String,
    /// In lower case.
    pub(crate) headers: String,
    /// How often the same was asked before.
    pub(crate) nth: usize,
    body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The path, without what is escaped in it.
    pub(crate) fn path(&self) -> String {
        unescaped(self.target.split('?').next().unwrap_or_default())
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        let value = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
        Some(unescaped(&value.replace('+', " ")))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// So many bytes of the body are sent, whatever is announced.
    pub(crate) sent_bytes: Option<usize>,
    pub(crate) framing: Framing,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    Length,
    Chunks,
    /// By the end of the connection.
    Close,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), sent_bytes: None, framing: Framing::Length }
    }

    /// As a cloud refuses.
    pub(crate) fn refusal(status: u16, code: &str) -> Answer {
        Answer::new(status, format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"))
    }

    /// As something in between answers.
    pub(crate) fn page(status: u16) -> Answer {
        Answer::new(status, "<html>Log in to use this network</html>")
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }
}

type Script = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

/// The server.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// By path.
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    blocks: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
    script: Box<Script>,
}

impl Fake {
    /// What `script` does not answer, the server answers of its objects.
    pub(crate) fn start(script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Fake {
        Fake::start_at("127.0.0.1", script)
    }

    /// The same at another address of this machine.
    #[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
    pub(crate) fn start_at(
        address: &str,
        script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            objects: Mutex::default(),
            blocks: Mutex::default(),
            asked: Mutex::default(),
            script: Box::new(script),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || drop(state.serve(socket)));
            }
        });
        Fake { address, state }
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.objects.lock().unwrap().insert(path.to_string(), bytes);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.objects.lock().unwrap().remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state.objects.lock().unwrap().get(path).cloned()
    }

    /// The paths below a prefix.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.state.objects.lock().unwrap();
        objects.keys().filter(|path| path.starts_with(prefix)).cloned().collect()
    }

    pub(crate) fn forget(&self) {
        self.state.asked.lock().unwrap().clear();
    }

    /// All that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }
}

impl State {
    fn serve(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(socket.try_clone()?);
        let mut head = String::new();
        while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
        let mut words = head.split(' ').map(str::to_string);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut asked = Asked { method, target, headers: head.to_lowercase(), nth: 0, body: Vec::new() };
        let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        reader.take(length).read_to_end(&mut asked.body)?;
        {
            let mut all = self.asked.lock().unwrap();
            let is_same = |other: &&Asked| other.method == asked.method && other.target == asked.target;
            asked.nth = all.iter().filter(is_same).count();
            all.push(asked.clone());
        }
        let answer = (self.script)(&asked).unwrap_or_else(|| self.answer(&asked));
        let mut head = format!("HTTP/1.1 {} S\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match answer.framing {
            Framing::Length => head += &format!("Content-Length: {}\r\n", answer.body.len()),
            Framing::Chunks => head += "Transfer-Encoding: chunked\r\n",
            Framing::Close => {}
        }
        socket.write_all(format!("{head}\r\n").as_bytes())?;
        let sent = answer.sent_bytes.unwrap_or(answer.body.len());
        match (asked.method.as_str(), answer.framing) {
            ("HEAD", _) => Ok(()),
            (_, Framing::Chunks) => {
                for chunk in answer.body[..sent].chunks(1000) {
                    socket.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    socket.write_all(chunk)?;
                    socket.write_all(b"\r\n")?;
                }
                socket.write_all(b"0\r\n\r\n")
            }
            _ => socket.write_all(&answer.body[..sent]),
        }
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path();
        let mut objects = self.objects.lock().unwrap();
        let is_list = |part: &str| asked.target.contains(part);
        match asked.method.as_str() {
            "GET" if is_list("list-type=2") || is_list("comp=list") => list(asked, &path, &objects),
            "GET" | "HEAD" => match objects.get(&path) {
                Some(bytes) => object(asked, bytes),
                None if asked.header("x-ms-version").is_some() => Answer::refusal(404, "BlobNotFound"),
                None => Answer::refusal(404, "NoSuchKey"),
            },
            "PUT" => {
                let must_be_new = asked.header("if-none-match") == Some("*")
                    || asked.header("x-goog-if-generation-match") == Some("0");
                if must_be_new && objects.contains_key(&path) {
                    return Answer::refusal(412, "PreconditionFailed");
                }
                let mut bytes = asked.body.clone();
                match asked.query("comp").as_deref() {
                    Some("block") => {
                        let id = asked.query("blockid").unwrap_or_default();
                        self.blocks.lock().unwrap().insert(id, bytes);
                        return Answer::new(201, "");
                    }
                    Some("blocklist") => {
                        let blocks = self.blocks.lock().unwrap();
                        let list = String::from_utf8(bytes).unwrap();
                        let ids = list.split("Uncommitted>").skip(1).step_by(2);
                        bytes = ids.flat_map(|id| blocks[id.trim_end_matches("</")].clone()).collect();
                    }
                    _ => {}
                }
                let answer = Answer::new(if asked.header("x-ms-version").is_some() { 201 } else { 200 }, "");
                let answer = answer.with("ETag", etag(&bytes)).with("x-goog-generation", "1");
                objects.insert(path, bytes);
                answer
            }
            "DELETE" => {
                objects.remove(&path);
                Answer::new(204, "")
            }
            "POST" if is_list("comp=batch") => {
                let body = String::from_utf8_lossy(&asked.body).into_owned();
                let mut said = String::new();
                for (id, line) in body.lines().filter(|line| line.starts_with("DELETE ")).enumerate() {
                    objects.remove(&unescaped(line.split([' ', '?']).nth(1).unwrap_or_default()));
                    said += &format!(
                        "--batch\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\n\
                         HTTP/1.1 202 Accepted\r\nx-ms-version: 1\r\n\r\n\r\n"
                    );
                }
                let answer = Answer::new(202, format!("{said}--batch--\r\n"));
                answer.with("Content-Type", "multipart/mixed; boundary=batch")
            }
            _ => Answer::new(405, ""),
        }
    }
}

/// An object, or the part of it that was asked for.
pub(crate) fn object(asked: &Asked, bytes: &[u8]) -> Answer {
    let tag = etag(bytes);
    if asked.header("if-match").is_some_and(|wanted| wanted != tag) {
        return Answer::refusal(412, "PreconditionFailed");
    }
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes="));
    let answer = match range.and_then(|range| range.split_once('-')) {
        Some((first, last)) => {
            let first: usize = first.parse().unwrap_or(0);
            let last = last.parse().unwrap_or(usize::MAX).min(bytes.len().saturating_sub(1));
            if first >= bytes.len() {
                return Answer::refusal(416, "InvalidRange");
            }
            let answer = Answer::new(206, &bytes[first..=last]);
            answer.with("Content-Range", format!("bytes {first}-{last}/{}", bytes.len()))
        }
        None => Answer::new(200, bytes),
    };
    answer.with("ETag", tag).with("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")
}

/// Of some bytes; in lower case, as the headers of requests are kept.
pub(crate) fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..16])
}

/// Two objects a page.
fn list(asked: &Asked, path: &str, objects: &BTreeMap<String, Vec<u8>>) -> Answer {
    let is_azure = asked.target.contains("comp=list");
    let below = format!("{}/", path.trim_end_matches('/'));
    let prefix = asked.query("prefix").unwrap_or_default();
    let token = asked.query(if is_azure { "marker" } else { "continuation-token" }).unwrap_or_default();
    let keys = objects.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(&below)?, bytes)));
    let mut keys = keys.filter(|(key, _)| key.starts_with(&prefix) && *key >= token.as_str());
    let page: Vec<_> = keys.by_ref().take(2).collect();
    let next = keys.next().map(|(key, _)| key);
    let date = "Wed, 01 Jan 2020 00:00:00 GMT";
    let xml: String = match is_azure {
        true => {
            let blob = |(key, bytes): &(&str, &Vec<u8>)| {
                format!(
                    "<Blob><Name>{key}</Name><Properties><Last-Modified>{date}</Last-Modified><Etag>{}</Etag>\
                     <Content-Length>{}</Content-Length><Content-Type>x/y</Content-Type></Properties></Blob>",
                    etag(bytes).trim_matches('"'),
                    bytes.len()
                )
            };
            format!(
                "<EnumerationResults><Blobs>{}</Blobs><NextMarker>{}</NextMarker></EnumerationResults>",
                page.iter().map(blob).collect::<String>(),
                next.unwrap_or_default()
            )
        }
        false => {
            let object = |(key, bytes): &(&str, &Vec<u8>)| {
                format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>{}</ETag></Contents>",
                    bytes.len(),
                    etag(bytes).trim_matches('"')
                )
            };
            let next = next.map_or("<IsTruncated>false</IsTruncated>".to_string(), |next| {
                format!(
                    "<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>"
                )
            });
            let objects: String = page.iter().map(object).collect();
            format!("<ListBucketResult>{objects}{next}</ListBucketResult>")
        }
    };
    Answer::new(200, format!("<?xml version=\"1.0\"?>{xml}"))
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// So many images of two classes: their names and bytes.
pub(crate) fn png_files(n: u8) -> Vec<(String, Vec<u8>)> {
    let one = |index: u8| {
        let mut bytes = std::io::Cursor::new(vec![]);
        let image = image::RgbImage::from_fn(12, 12, |x, y| {
            image::Rgb([index.wrapping_mul(37), x as u8 * 9, (y as u8).wrapping_mul(index)])
        });
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        (format!("{}/n {index}.png", ["a", "b"][usize::from(index % 2)]), bytes.into_inner())
    };
    (0..n).map(one).collect()
}
