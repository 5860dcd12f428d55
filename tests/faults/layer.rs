//! Between a client and a server: passes requests on, one connection each, and does to some of them what networks,
//! proxies and busy servers do.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_datasets::seed::Seed;

/// What is done to a request or to its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// An answer of the store: status, S3's code, and the hub's code where it has one.
    Refusal(u16, &'static str),
    /// An answer of something in between: a status and a web page.
    Page(u16),
    /// A web page that a cache gives an entity tag.
    TaggedPage,
    /// A redirect to where nobody is, or to nowhere.
    Redirect(u16, bool),
    /// The connection is closed before the request is read.
    Refused,
    /// The true answer breaks off in its body, without an announced end.
    Reset,
    /// Half of the body, announced as if it were all.
    Truncated,
    /// The whole body, announced as more than it is.
    Longer,
    /// The head of the answer and half of its body, and nothing more.
    Stall,
    /// Nothing at all.
    Silent,
    /// A byte now and then.
    Drip,
    /// One byte of the body is another one.
    Flipped,
    /// The body is packed, which nobody asked for.
    Packed,
    /// The request is carried out, and the answer is lost.
    Lost,
    /// The request is carried out twice.
    Twice,
    /// The condition that nothing may be there yet is ignored.
    Unconditional,
    /// A range is not understood: the whole comes.
    WholeInsteadOfPart,
    /// A range is refused, and each answer breaks off.
    NoRanges,
    /// One byte a connection.
    ByteAConnection,
    /// A page of a listing lacks its end.
    CutPage,
    /// A page of a listing names a key twice.
    DoubledKey,
    /// Each page says that another follows, with the same token.
    RepeatedToken,
}

/// A request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn is_listing(&self) -> bool {
        self.method == "GET" && self.target.contains("list-type=2")
    }

    fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// Which requests are hit.
pub(crate) struct Plan {
    pub(crate) fault: Fault,
    pub(crate) seed: u64,
    /// How often the same request is hit; with `None` for ever.
    pub(crate) times: Option<u32>,
    /// Of the requests that it may hit, one in so many is hit; by the seed.
    pub(crate) one_in: u64,
    pub(crate) may_hit: fn(&Request) -> bool,
}

/// The layer: its own address, and what it does.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    hits: BTreeMap<String, u32>,
    n_hits: u64,
}

impl Layer {
    /// `root` is the folder that the server keeps its objects in, where it does.
    pub(crate) fn before(server: SocketAddr, root: Option<&Path>) -> Layer {
        let state: Arc<Mutex<State>> = Arc::default();
        Layer { address: listen(server, root, &state), state }
    }

    /// Stands before a second server too; the address of that side.
    pub(crate) fn beside(&self, server: SocketAddr) -> SocketAddr {
        listen(server, None, &self.state)
    }

    /// From now on.
    pub(crate) fn set(&self, plan: Option<Plan>) {
        *self.state.lock().unwrap() = State { plan, ..State::default() };
    }

    /// How many requests were hit since the plan was set.
    pub(crate) fn hits(&self) -> u64 {
        self.state.lock().unwrap().n_hits
    }
}

#[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
fn listen(server: SocketAddr, root: Option<&Path>, state: &Arc<Mutex<State>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (state, root) = (state.clone(), root.map(Path::to_path_buf));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (state, root) = (state.clone(), root.clone());
            std::thread::spawn(move || drop(serve(client, server, root.as_deref(), &state)));
        }
    });
    address
}

fn decide(request: &Request, state: &Mutex<State>) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    let State { plan: Some(plan), hits, n_hits } = &mut *state else { return None };
    let name = format!("{} {}", request.method, request.target);
    if !(plan.may_hit)(request) || !Seed(plan.seed).stream(&name).bits().is_multiple_of(plan.one_in) {
        return None;
    }
    let n = hits.entry(name).or_default();
    if plan.times.is_some_and(|times| *n >= times) {
        return None;
    }
    *n += 1;
    *n_hits += 1;
    Some(plan.fault)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A head up to its empty line, and a body as long as announced.
fn read_message(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 1 << 14]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while body.len() < length {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => body.extend_from_slice(&piece[..n]),
        }
    }
    Ok((head, body))
}

/// Asks the server: the head of its answer, without how its body is framed, and the body.
fn forward(
    server: SocketAddr,
    request: &Request,
    without: Option<&str>,
) -> std::io::Result<(String, Vec<u8>)> {
    let mut upstream = TcpStream::connect(server)?;
    let kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        !name.eq_ignore_ascii_case("connection")
            && without.is_none_or(|gone| !name.eq_ignore_ascii_case(gone))
    };
    let mut head: Vec<&str> = request.head.trim_end().lines().filter(kept).collect();
    head.insert(1, "Connection: close");
    upstream.write_all(format!("{}\r\n\r\n", head.join("\r\n")).as_bytes())?;
    upstream.write_all(&request.body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
    let mut body = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer).into_owned();
    if header(&head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        body = unchunked(&body);
    }
    let kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["connection", "transfer-encoding"].contains(&name.as_str())
            && (name != "content-length" || request.method == "HEAD")
    };
    Ok((head.trim_end().lines().filter(kept).collect::<Vec<_>>().join("\r\n"), body))
}

fn unchunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|window| window == b"\r\n") {
        let size =
            std::str::from_utf8(&chunks[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && end + 2 + size <= chunks.len()) else { break };
        body.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[(end + 4 + size).min(chunks.len())..];
    }
    body
}

/// Sends an answer that is announced to have so many bytes.
fn answer(
    client: &mut TcpStream,
    is_head: bool,
    head: &str,
    body: &[u8],
    announced: usize,
) -> std::io::Result<()> {
    let length = match header(head, "content-length") {
        Some(_) => String::new(),
        None => format!("Content-Length: {announced}\r\n"),
    };
    client.write_all(format!("{head}\r\n{length}Connection: close\r\n\r\n").as_bytes())?;
    client.write_all(if is_head { &[] } else { body })
}

fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    root: Option<&Path>,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let (head, body) = read_message(&mut client)?;
    let mut words = head.split(' ').map(str::to_string);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let request = Request { method, target, head, body };
    let is_head = request.method == "HEAD";
    let fault = decide(&request, state);
    // Whoever gives up closes; until then this connection says nothing.
    let wait = |client: &mut TcpStream| drop(client.read(&mut [0]));
    let Some(fault) = fault else {
        let (head, body) = forward(server, &request, None)?;
        return answer(&mut client, is_head, &head, &body, body.len());
    };
    match fault {
        Fault::Refusal(status, code) => {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by \x1b[2J the layer</Message></Error>"
            );
            let head =
                format!("HTTP/1.1 {status} Odd\r\nContent-Type: application/xml\r\nX-Error-Code: {code}");
            return answer(&mut client, is_head, &head, body.as_bytes(), body.len());
        }
        Fault::Page(status) => {
            let body = b"<html><body>Log in to use this network</body></html>";
            let head = format!("HTTP/1.1 {status} Odd\r\nContent-Type: text/html");
            return answer(&mut client, is_head, &head, body, body.len());
        }
        Fault::TaggedPage => {
            let body = b"<html><body>Log in to use this network</body></html>";
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"ce013625030ba8dba906f756967f9e9ca394464a\"";
            return answer(&mut client, is_head, head, body, body.len());
        }
        Fault::Redirect(status, has_place) => {
            let place = if has_place { "\r\nLocation: http://127.0.0.1:9/elsewhere" } else { "" };
            let body = b"<Error><Code>PermanentRedirect</Code></Error>";
            return answer(&mut client, is_head, &format!("HTTP/1.1 {status} Odd{place}"), body, body.len());
        }
        Fault::Refused => return client.shutdown(Shutdown::Both),
        Fault::Silent => {
            wait(&mut client);
            return Ok(());
        }
        Fault::Lost => {
            forward(server, &request, None)?;
            return client.shutdown(Shutdown::Both);
        }
        Fault::Twice => drop(forward(server, &request, None)?),
        // The condition is signed, so that it cannot be taken off; but what it asks for can be made true.
        Fault::Unconditional => {
            let path = request.target.split('?').next().unwrap_or_default();
            let _ = root.map(|root| std::fs::remove_file(root.join(path.trim_start_matches('/'))));
        }
        _ => {}
    }
    let without = (fault == Fault::WholeInsteadOfPart).then_some("range");
    if fault == Fault::NoRanges && request.header("range").is_some() {
        return answer(&mut client, is_head, "HTTP/1.1 416 Range Not Satisfiable", b"", 0);
    }
    let (head, mut body) = forward(server, &request, without)?;
    let length = body.len();
    match fault {
        Fault::Reset => {
            answer(&mut client, is_head, &head, &body[..length / 2], length)?;
            client.shutdown(Shutdown::Both)
        }
        Fault::Truncated => answer(&mut client, is_head, &head, &body[..length / 2], length / 2),
        Fault::Longer => answer(&mut client, is_head, &head, &body, length + 100),
        Fault::NoRanges => answer(&mut client, is_head, &head, &body[..length * 3 / 4], length),
        Fault::ByteAConnection => answer(&mut client, is_head, &head, &body[..length.min(1)], length),
        Fault::Stall => {
            answer(&mut client, is_head, &head, &body[..length / 2], length)?;
            wait(&mut client);
            Ok(())
        }
        Fault::Drip => {
            answer(&mut client, is_head, &head, b"", length)?;
            for byte in body {
                client.write_all(&[byte])?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Fault::Flipped => {
            if let Some(byte) = body.get_mut(length / 2) {
                *byte ^= 0x10;
            }
            answer(&mut client, is_head, &head, &body, length)
        }
        Fault::Packed => {
            // Nobody unpacks it, so that what it holds does not matter.
            let packed = [&[0x1f, 0x8b, 8, 0][..], &body[..length / 3]].concat();
            answer(&mut client, is_head, &format!("{head}\r\nContent-Encoding: gzip"), &packed, packed.len())
        }
        Fault::CutPage => answer(&mut client, is_head, &head, &body[..length * 2 / 3], length * 2 / 3),
        Fault::DoubledKey | Fault::RepeatedToken => {
            let text = String::from_utf8_lossy(&body).into_owned();
            let text = match fault {
                Fault::DoubledKey => match (text.find("<Contents>"), text.find("</Contents>")) {
                    (Some(start), Some(end)) => {
                        let one = &text[start..end + "</Contents>".len()];
                        text.replacen(one, &one.repeat(2), 1)
                    }
                    _ => text,
                },
                _ => text
                    .replace("<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>")
                    .replace(
                        "</ListBucketResult>",
                        "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
                    ),
            };
            answer(&mut client, is_head, &head, text.as_bytes(), text.len())
        }
        _ => answer(&mut client, is_head, &head, &body, length),
    }
}
