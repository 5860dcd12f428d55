//! Datasets in other clouds and on the web: a small server that speaks as each of them does, and what the program makes
//! of its answers.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use forebay_datasets::store::{Store, StoreOptions};

use self::server::{Answer, Fake, Framing, png_files};
use crate::fixture::Place;
use crate::weights::{COMMIT, Hub};

/// A place with the credentials of a fake Google Cloud Storage, or of a fake Azure.
fn place(fake: &Fake, scheme: &str) -> Place {
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    match scheme {
        "gs" => {
            place.set("GOOGLE_BEARER_TOKEN", "geheim-token");
            place.set("GOOGLE_BASE_URL", &format!("http://{}", fake.address));
        }
        _ => {
            place.set("AZURE_STORAGE_ACCOUNT_NAME", "me");
            place.set("AZURE_STORAGE_ACCOUNT_KEY", "Z2VoZWltLXRva2VuLWlzLWl0");
            place.set("AZURE_STORAGE_ENDPOINT", &format!("http://{}", fake.address));
        }
    }
    place
}

#[test]
fn a_dataset_is_prepared_from_and_to_the_buckets_of_other_clouds() {
    for scheme in ["gs", "az"] {
        let fake = Fake::start(|_| None);
        for (name, bytes) in png_files(12) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let place = place(&fake, scheme);
        let inspected = place.run(&format!("inspect {scheme}://pictures/in --json")).done();
        assert_eq!(inspected.json()["found"], 12, "{scheme}: {}", inspected.stdout);
        let prepare = format!("prepare {scheme}://pictures/in {scheme}://pictures/out --size 8 --encode png");
        let prepare = format!("{prepare} --samples-per-shard 5 --split none --json");
        let said = place.run(&prepare).done();
        assert_eq!(said.json()["samples"]["written"].as_u64().unwrap_or(12), 12, "{}", said.stdout);
        place.run(&format!("verify {scheme}://pictures/out")).done();
        // The same bytes as on a disk.
        for (name, bytes) in png_files(12) {
            place.write(&format!("in/{name}"), &bytes);
        }
        place.run("prepare in out --size 8 --encode png --samples-per-shard 5 --split none").done();
        for (name, bytes) in place.files("out").into_iter().filter(|(name, _)| name != "plan.json") {
            assert!(fake.get(&format!("/pictures/out/{name}")) == Some(bytes), "{scheme}: {name} differs");
        }
        // And they go where others take their place.
        let other = prepare.replace("--samples-per-shard 5", "--samples-per-shard 4 --overwrite");
        place.run(&other).done();
        place.run(&format!("verify {scheme}://pictures/out")).done();
        assert_eq!(fake.keys("/pictures/out/data/").len(), 3, "{scheme}: {:?}", fake.keys("/pictures/out/"));
        let asked = fake.asked();
        assert!(
            asked.iter().all(|asked| asked.headers.contains("authorization:")),
            "every request is signed"
        );
        assert!(
            asked.iter().any(|asked| asked.target.contains("marker=") || asked.target.contains("-token=")),
            "{scheme}: the listing has pages"
        );
        let heard = [inspected.stdout, inspected.stderr, said.stdout, said.stderr].concat();
        assert!(!heard.contains("geheim-token") && !heard.contains("Z2VoZWlt"), "the secret was printed");
    }
}

#[test]
fn a_public_bucket_is_read_without_credentials_and_another_one_says_what_is_missing() {
    for scheme in ["gs", "az"] {
        let fake = Fake::start(|_| None);
        for (name, bytes) in png_files(4) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let mut place = Place::new();
        place.set("AZURE_STORAGE_ACCOUNT_NAME", "me");
        let at = format!("--endpoint http://{}", fake.address);
        place.run(&format!("inspect {scheme}://pictures/in --anonymous {at}")).done();
        assert!(fake.asked().iter().all(|asked| !asked.headers.contains("authorization:")));
        let said =
            place.run(&format!("inspect {scheme}://pictures/in {at}")).refused(2, "no credentials: set ");
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);

        let denying = Fake::start(|_| Some(Answer::refusal(403, "AccessDenied")));
        let at = format!("--endpoint http://{}", denying.address);
        let said = place.run(&format!("inspect {scheme}://pictures/in --anonymous {at}"));
        assert!(said.code != 0 && said.stderr.contains("is not public"), "{}", said.stderr);
    }
}

#[test]
fn a_container_that_is_not_there_is_called_so() {
    for (scheme, code, says) in [
        ("gs", "NoSuchBucket", "there is no bucket called pictures"),
        ("az", "ContainerNotFound", "there is no container called pictures"),
    ] {
        let fake = Fake::start(move |_| Some(Answer::refusal(404, code)));
        place(&fake, scheme).run(&format!("inspect {scheme}://pictures/in")).refused(1, says);
    }
    let fake = Fake::start(|_| Some(Answer::page(200)));
    for scheme in ["gs", "az"] {
        let said = place(&fake, scheme).run(&format!("inspect {scheme}://pictures/in"));
        said.refused(1, "the server answered with something else than");
    }
}

/// Images that are more than a few bytes each.
fn noise(n: u64) -> Vec<(String, Vec<u8>)> {
    let place = Place::new();
    for index in 0..n {
        place.write_png(&format!("in/{}/{index}.png", ["a", "b"][index as usize % 2]), 64, 64, index);
    }
    place.files("in").into_iter().collect()
}

#[test]
fn a_large_object_is_read_in_parts_of_one_version() {
    let fake = Fake::start(|_| None);
    for (name, bytes) in noise(2) {
        fake.put(&format!("/pictures/in/{name}"), bytes);
    }
    let mut place = place(&fake, "gs");
    // What is larger than two parts is read in parts.
    place.set("FOREBAY_PART_BYTES", "3000");
    place.run("prepare gs://pictures/in out --size 16 --split none").done();
    let is_part = |asked: &server::Asked| asked.header("range").is_some() && asked.path().ends_with(".png");
    let parts: Vec<_> = fake.asked().into_iter().filter(is_part).collect();
    assert!(parts.len() >= 8, "{} parts", parts.len());
    let firsts = parts.iter().filter(|asked| asked.header("range") == Some("bytes=0-2999"));
    assert!(firsts.clone().count() >= 2 && firsts.clone().all(|asked| asked.header("if-match").is_none()));
    let mut others = parts.iter().filter(|asked| asked.header("range") != Some("bytes=0-2999"));
    assert!(others.all(|asked| asked.header("if-match").is_some()), "all of one version");
    let whole = Place::new();
    for (name, bytes) in noise(2) {
        whole.write(&format!("in/{name}"), &bytes);
    }
    whole.run("prepare in out --size 16 --split none").done();
    let data = |place: &Place| -> Vec<_> {
        place.files("out").into_iter().filter(|(name, _)| name != "plan.json").collect()
    };
    assert!(data(&whole) == data(&place), "the same shards");
}

#[test]
fn an_object_that_changes_while_it_is_read_ends_the_run() {
    for minds_conditions in [true, false] {
        let (_, other) = noise(3).pop().unwrap();
        let fake = Fake::start(move |asked| {
            let is_late_part = asked.header("range").is_some_and(|range| !range.starts_with("bytes=0-"));
            let mut asked = asked.clone();
            if !minds_conditions {
                asked.headers = asked.headers.replace("if-match:", "x-nothing:");
            }
            (asked.target.contains("0%2Epng") && is_late_part).then(|| server::object(&asked, &other))
        });
        for (name, bytes) in noise(2) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let mut place = place(&fake, "gs");
        place.set("FOREBAY_PART_BYTES", "3000");
        let said = place.run("prepare gs://pictures/in out --size 16 --split none");
        said.refused(1, "0.png: it was changed while it was read: run again");
    }
}

/// An answer of a server that says no more of a version than when it was changed last.
fn untagged(answer: Answer, second: u8) -> Answer {
    let kept = |(name, _): &(&str, String)| !["ETag", "Last-Modified"].contains(name);
    let headers = answer.headers.into_iter().filter(kept).collect();
    let time = format!("Wed, 01 Jan 2020 00:00:{second:02} GMT");
    Answer { headers, ..answer }.with("Last-Modified", time)
}

#[test]
fn a_tar_file_that_is_replaced_while_it_is_read_ends_the_run_whenever_that_is() {
    let (_, before) = tars().swap_remove(0);
    // The members keep their places, and their pixels change.
    let mut after = before.clone();
    let png = |bytes: &[u8]| bytes.windows(4).position(|window| window == b"\x89PNG").expect("an image");
    let at = png(&after) + 60;
    after[at] ^= 1;
    for (name, has_tags, how) in
        [("web", true, ""), ("web", false, ""), ("gs", true, ""), ("web", true, "--cache kept")]
    {
        let now = Arc::new(AtomicUsize::new(usize::MAX));
        let answered = Arc::new(AtomicUsize::new(0));
        let fake = Fake::start({
            let (before, after, now, answered) =
                (before.clone(), after.clone(), now.clone(), answered.clone());
            move |asked| {
                if !asked.path().ends_with("x.tar") {
                    return None;
                }
                let is_after = answered.fetch_add(1, Ordering::SeqCst) >= now.load(Ordering::SeqCst);
                let answer = server::object(asked, if is_after { &after } else { &before });
                Some(if has_tags { answer } else { untagged(answer, u8::from(is_after)) })
            }
        });
        fake.put("/data/x.tar", before.clone());
        let mut requests = 3;
        // Replaced after none of the requests, after the first, and so on, until it is replaced too late.
        let mut n = 1;
        while n < requests {
            answered.store(0, Ordering::SeqCst);
            now.store(n, Ordering::SeqCst);
            let place = place(&fake, "gs");
            let source = match name {
                "gs" => "gs://data/x.tar".to_string(),
                _ => format!("http://{}/data/x.tar", fake.address),
            };
            let said = place.run(&format!("prepare {source} out --size 8 --split none {how}"));
            requests = answered.load(Ordering::SeqCst);
            if n < requests {
                said.refused(1, "x.tar: it was changed while it was read: run again");
            } else {
                said.done();
            }
            n += 1;
        }
        assert!(n >= if how.is_empty() { 5 } else { 2 }, "{name}: {n}");
    }
}

#[test]
fn an_image_without_a_tag_that_changes_between_its_parts_ends_the_run() {
    let (_, other) = noise(3).pop().unwrap();
    let files = noise(2);
    let objects = files.clone();
    let fake = Fake::start(move |asked| {
        let bytes = &objects.iter().find(|(name, _)| asked.path().ends_with(name))?.1;
        let is_late = asked.header("range").is_some_and(|range| !range.starts_with("bytes=0-"));
        Some(match is_late && asked.path().ends_with("0.png") {
            // Of the same size.
            true => untagged(server::object(asked, &[&other[..], bytes].concat()[..bytes.len()]), 1),
            false => untagged(server::object(asked, bytes), 0),
        })
    });
    let mut table = "file_name,label\n".to_string();
    files.iter().for_each(|(name, _)| table += &format!("{name},{}\n", &name[..1]));
    fake.put("/data/labels.csv", table.into_bytes());
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    place.set("FOREBAY_PART_BYTES", "3000");
    let url = format!("http://{}/data/labels.csv", fake.address);
    let said = place.run(&format!("prepare {url} out --size 16 --split none"));
    said.refused(1, "0.png: it was changed while it was read: run again");
}

#[test]
fn a_body_that_is_cut_goes_on_where_it_ended() {
    let files = noise(2);
    let (name, bytes) = files[0].clone();
    let path = format!("/pictures/in/{name}");
    let cut = path.clone();
    let fake = Fake::start(move |asked| {
        let is_first = asked.method == "GET" && asked.path() == cut && asked.nth == 0;
        is_first.then(|| {
            let whole = server::object(asked, &bytes);
            server::Answer { sent_bytes: Some(bytes.len() / 2), ..whole }
        })
    });
    for (name, bytes) in &files {
        fake.put(&format!("/pictures/in/{name}"), bytes.clone());
    }
    place(&fake, "gs").run("prepare gs://pictures/in out --size 16 --split none").done();
    let asked = fake.asked();
    let mut of_it = asked.iter().filter(|asked| asked.method == "GET" && asked.path() == path).skip(1);
    let resumed = of_it.next().expect("it is asked for again");
    assert!(
        resumed.header("range").is_some_and(|range| !range.starts_with("bytes=0-")),
        "{}",
        resumed.headers
    );
}

#[test]
fn a_storm_of_throttling_passes_and_nothing_is_lost() {
    for (scheme, status, code) in [("gs", 429, "TooManyRequests"), ("az", 503, "ServerBusy")] {
        let fake = Fake::start(move |asked| {
            let is_image = asked.method == "GET" && asked.path().ends_with(".png");
            (is_image && asked.nth < 3).then(|| Answer::refusal(status, code))
        });
        for (name, bytes) in png_files(20) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let place = place(&fake, scheme);
        place.run(&format!("prepare {scheme}://pictures/in out --size 8 --split none")).done();
        place.run("verify out").done();
        let asked = fake.asked();
        let images = asked.iter().filter(|asked| asked.method == "GET" && asked.path().ends_with(".png"));
        assert!(images.count() >= 4 * 20);
    }
}

/// Three shards of WebDataset: their names and bytes.
fn tars() -> Vec<(String, Vec<u8>)> {
    let place = Place::new();
    for (index, (name, bytes)) in png_files(12).into_iter().enumerate() {
        place.write(&format!("in{}/{name}", index % 3), &bytes);
    }
    let shard = |index: usize| {
        place.run(&format!("convert in{index} out{index} --format webdataset")).done();
        let files = place.files(&format!("out{index}"));
        files.into_iter().find(|(name, _)| name.ends_with(".tar")).expect("a shard")
    };
    (0..3).map(shard).collect()
}

/// The URL of the tar files, with braces.
fn numbered(fake: &Fake, tars: &[(String, Vec<u8>)]) -> String {
    let names: Vec<String> = (0..tars.len()).map(|index| format!("train-{index:03}.tar")).collect();
    for (name, (_, bytes)) in names.iter().zip(tars) {
        fake.put(&format!("/data/{name}"), bytes.clone());
    }
    format!("http://{}/data/train-{{000..{:03}}}.tar", fake.address, tars.len() - 1)
}

#[test]
fn tar_files_of_a_web_server_are_a_dataset() {
    let tars = tars();
    assert_eq!(tars.len(), 3);
    // With parts, and where the server sends none.
    for has_ranges in [true, false] {
        let fake = Fake::start(|_| None);
        let place = Place::new();
        let url = numbered(&fake, &tars);
        let plain = match has_ranges {
            true => None,
            false => Some(Fake::start({
                let objects = tars.clone();
                move |asked| {
                    let mut asked = asked.clone();
                    asked.headers = asked.headers.replace("range:", "x-nothing:");
                    let index: usize =
                        asked.path().rsplit('-').next()?.trim_end_matches(".tar").parse().ok()?;
                    Some(server::object(&asked, &objects[index].1))
                }
            })),
        };
        let url = match &plain {
            Some(plain) => url.replace(&fake.address.to_string(), &plain.address.to_string()),
            None => url,
        };
        let said = place.run_with(&["inspect", &url, "--json"]).done().json();
        assert_eq!(said["found"], 12, "{said}");
        place.run_with(&["prepare", &url, "out", "--size", "8", "--split", "none"]).done();
        place.run("verify out").done();
        if has_ranges {
            let asked = fake.asked();
            assert!(asked.iter().any(|asked| asked.header("range").is_some()), "it is read in parts");
            assert!(asked.iter().all(|asked| asked.path().ends_with(".tar")), "nothing else is asked for");
        }
    }
}

#[test]
fn a_table_of_a_web_server_names_its_images() {
    let fake = Fake::start(|_| None);
    let mut table = "file_name,label\n".to_string();
    for (index, (name, bytes)) in png_files(6).into_iter().enumerate() {
        // Some by their whole URL.
        let place = if index < 2 { format!("http://{}/data/", fake.address) } else { String::new() };
        table += &format!("{place}{name},{}\n", &name[..1]);
        fake.put(&format!("/data/{name}"), bytes);
    }
    table += "a/missing.png,a\nhttps://elsewhere.invalid/x.png,a\n";
    fake.put("/data/labels.csv", table.into_bytes());
    let place = Place::new();
    let said = place.run(&format!("inspect http://{}/data/labels.csv --json", fake.address)).done().json();
    assert_eq!((&said["found"], said["rejects"].as_array().map(Vec::len)), (&8.into(), Some(2)), "{said}");
    let prepare = format!("prepare http://{}/data/labels.csv out --size 8 --split none", fake.address);
    place.run(&format!("{prepare} --max-rejects 2")).done();
    place.run("verify out").done();
}

#[test]
fn what_a_web_server_cannot_do_is_one_line() {
    let fake = Fake::start(|asked| {
        // Larger than what is read whole, and never in parts.
        let large = Answer { sent_bytes: Some(0), ..Answer::new(200, vec![0; 17 << 20]) };
        asked.path().ends_with("large.tar").then_some(large)
    });
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    let at = format!("http://{}/data", fake.address);
    for (arguments, code, says) in [
        (format!("inspect {at}"), 2, "a web server does not list what it has: name a file of the dataset ("),
        (format!("inspect {at}/none.tar"), 2, "/data/none.tar: there is no such file"),
        (format!("inspect {at}/train-{{0..1}}.tar"), 2, "/data/train-0.tar: there is no such file"),
        (
            format!("inspect {at}/large.tar"),
            1,
            "the server sends no parts of files, and this one has 17825792 bytes",
        ),
        (format!("inspect {at}/x.tar?token=geheim"), 2, "a URL with a query (?..) is not read"),
        ("inspect http://me:geheim@host/x.tar".to_string(), 2, "a URL may hold no credentials"),
        (format!("prepare {at}/none.tar {at}/out"), 2, "nothing can be written to the web"),
    ] {
        let said = place.run(&arguments).refused(code, says);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        assert!(!said.stderr.contains("geheim"), "{}", said.stderr);
    }
}

#[test]
fn a_redirect_from_a_public_server_to_a_private_one_is_refused_unless_it_is_allowed() {
    let tars = tars();
    let private = Fake::start(|_| None);
    let url = numbered(&private, &tars);
    let port = private.address.port();
    for host in ["127.0.0.1", "localhost", "2130706433"] {
        let public = Fake::start_at("127.0.0.2", move |asked| {
            let to = format!("http://{host}:{port}{}", asked.target);
            Some(Answer::new(302, "").with("Location", to))
        });
        let mut place = Place::new();
        place.set("FOREBAY_PATIENCE", "0.03");
        place.set("FOREBAY_PUBLIC_ADDRESS", "127.0.0.2");
        let url = url.replace(&private.address.to_string(), &public.address.to_string());
        let said = place
            .run_with(&["inspect", &url])
            .refused(1, "a private address, from a public one; --allow-private");
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        assert!(private.asked().is_empty(), "nothing was asked there: {host}");
        assert!(public.asked().len() <= 10, "what is hopeless is not tried again");
        // From one private server to another it leads nowhere new.
        place.set("FOREBAY_PUBLIC_ADDRESS", "127.0.0.9");
        if host != "localhost" {
            place.run_with(&["inspect", &url]).done();
        }
        place.set("FOREBAY_PUBLIC_ADDRESS", "127.0.0.2");
        if host != "localhost" {
            place.run_with(&["inspect", &url, "--allow-private"]).done();
            private.forget();
        }
    }
    let public = Fake::start(|asked| Some(Answer::new(302, "").with("Location", asked.target.clone())));
    let place = Place::new();
    let url = format!("http://{}/x.tar", public.address);
    place.run_with(&["inspect", &url]).refused(1, "from one address to another more than 10 times");
}

/// The bytes of all files of a folder.
fn folder_bytes(folder: &std::path::Path) -> u64 {
    let Ok(files) = std::fs::read_dir(folder) else { return 0 };
    files.flatten().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// How often images were brought.
fn brought(fake: &Fake) -> usize {
    fake.asked().iter().filter(|asked| asked.method == "GET" && asked.path().ends_with(".png")).count()
}

#[test]
fn what_is_kept_is_not_asked_for_again_unless_it_changed_or_is_damaged() {
    let fake = Fake::start(|_| None);
    for (name, bytes) in noise(6) {
        fake.put(&format!("/pictures/in/{name}"), bytes);
    }
    let place = place(&fake, "gs");
    let prepare = |out: &str| format!("prepare gs://pictures/in {out} --size 16 --split none --cache kept");
    place.run(&prepare("out")).done();
    // What has no size in the header of a PNG is looked at too, by its first bytes.
    assert_eq!(brought(&fake), 6);
    fake.forget();
    place.run(&prepare("again")).done();
    assert_eq!(brought(&fake), 0);
    let data = |out: &str| -> Vec<_> {
        place.files(out).into_iter().filter(|(name, _)| name != "plan.json").collect()
    };
    assert!(data("out") == data("again"));

    // Another version of one, and a flipped byte of another.
    let (name, _) = noise(6).swap_remove(0);
    let other = noise(7).pop().expect("another one").1;
    fake.put(&format!("/pictures/in/{name}"), other);
    let objects = place.path("kept/objects");
    let damaged = std::fs::read_dir(&objects).unwrap().flatten().next().unwrap().path();
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    fake.forget();
    place.run(&prepare("changed")).done();
    assert!((1..=2).contains(&brought(&fake)), "{}", brought(&fake));
    fake.forget();
    place.run(&prepare("at-last")).done();
    assert_eq!(brought(&fake), 0);
    assert!(data("changed") == data("at-last"));
}

#[test]
fn parts_of_one_object_are_cut_out_of_the_one_that_is_kept() {
    let tars = tars();
    let fake = Fake::start(|_| None);
    let url = numbered(&fake, &tars);
    let place = Place::new();
    for out in ["out", "again"] {
        let prepare = ["prepare", &url, out, "--size", "8", "--split", "none", "--cache", "kept"];
        place.run_with(&prepare).done();
        place.run(&format!("verify {out}")).done();
    }
    let gets = fake.asked().iter().filter(|asked| asked.method == "GET").count();
    assert_eq!(gets, 3, "each tar file once");
}

#[test]
fn a_limit_smaller_than_an_object_and_a_cache_that_is_no_folder_are_one_line() {
    let fake = Fake::start(|_| None);
    for (name, bytes) in noise(2) {
        fake.put(&format!("/pictures/in/{name}"), bytes);
    }
    let place = place(&fake, "gs");
    let prepare = "prepare gs://pictures/in out --size 16 --split none";
    let said = place.run(&format!("{prepare} --cache kept --cache-limit 5KiB"));
    let said = said.refused(2, "and the cache kept may take 5120: raise --cache-limit, or leave --cache out");
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    place.run(&format!("{prepare} --cache-limit 5KiB")).refused(2, "nothing is kept without --cache");
    place
        .run(&format!("{prepare} --cache s3://b/x"))
        .refused(2, "it is a folder of this machine, and no URL");
    place.write("file", b"");
    place.run(&format!("{prepare} --cache file")).refused(2, "cannot use the cache file: ");
}

#[test]
fn a_smaller_limit_holds_also_where_everything_is_kept_already() {
    let fake = Fake::start(|_| None);
    for (name, bytes) in noise(10) {
        fake.put(&format!("/pictures/in/{name}"), bytes);
    }
    let place = place(&fake, "gs");
    let prepare = |out: &str| format!("prepare gs://pictures/in {out} --size 16 --split none --cache kept");
    place.run(&prepare("out")).done();
    assert!(folder_bytes(&place.path("kept/objects")) > 100_000);
    place.run(&format!("{} --cache-limit 60000", prepare("again"))).done();
    assert!(folder_bytes(&place.path("kept/objects")) <= 60_000);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the threads of a test are no nodes of a dataflow")]
fn two_processes_never_take_more_than_the_limit_together() {
    const LIMIT: u64 = 60_000;
    let fake = Fake::start(|_| None);
    // Each a fifth of the limit.
    for (name, bytes) in noise(16) {
        fake.put(&format!("/pictures/in/{name}"), bytes);
    }
    let place = place(&fake, "gs");
    let start = |out: &str| {
        let prepare = format!(
            "prepare gs://pictures/in {out} --size 16 --split none --cache kept --cache-limit {LIMIT}"
        );
        place.command(&prepare.split_whitespace().collect::<Vec<_>>()).spawn().unwrap()
    };
    for round in 0..3 {
        let mut children = ["one", "two", "three"].map(|out| start(&format!("{out}{round}")));
        let mut most = 0;
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            most = most.max(folder_bytes(&place.path("kept/objects")));
        }
        assert!(most > LIMIT / 3 && most <= LIMIT, "{most}");
        for child in children {
            crate::fixture::Said::of(child.wait_with_output().unwrap()).done();
        }
    }
    assert!(folder_bytes(&place.path("kept/objects")) <= LIMIT);
    assert!(place.files("one0") == place.files("two2"));
}

/// A hub with a dataset, and a place that may read it.
fn hub(files: &[(String, Vec<u8>)]) -> (Hub, Place) {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let hub = Hub::start(&files);
    let mut place = Place::new();
    hub.connect(&mut place);
    place.set("HF_TOKEN", "hf_secret");
    place.set("FOREBAY_PATIENCE", "0.03");
    (hub, place)
}

#[test]
fn an_option_of_another_kind_of_store_is_refused_and_an_anonymous_hub_is_sent_no_token() {
    let files: Vec<_> =
        png_files(4).into_iter().map(|(name, bytes)| (name.replace(' ', ""), bytes)).collect();
    let (hub, place) = hub(&files);
    place
        .run("inspect hf://datasets/o/d --cache kept")
        .refused(2, "kept in its own cache, which HF_HUB_CACHE");
    for option in ["--endpoint http://h", "--region r", "--instance-metadata"] {
        place.run(&format!("inspect hf://datasets/o/d {option}")).refused(2, "leave it out");
        if option != "--allow-private" {
            place.run(&format!("inspect http://127.0.0.1:1/x.tar {option}")).refused(2, "leave it out");
        }
    }
    place.run("inspect http://127.0.0.1:1/x.tar --anonymous").refused(2, "leave it out");
    assert!(hub.state().requests.is_empty());
    // This hub knows nobody without the token.
    place.run("inspect hf://datasets/o/d --anonymous").refused(2, "has no repository o/d, or it is private");
    let is_known = |request: &crate::weights::Request| request.headers.contains_key("authorization");
    assert!(!hub.state().requests.is_empty() && !hub.state().requests.iter().any(is_known));
    place.run("inspect hf://datasets/o/d").done();
}

#[test]
fn a_server_that_tells_no_versions_is_not_kept_in_silence() {
    let tar = tars().swap_remove(0).1;
    let fake = Fake::start(move |asked| {
        let mut answer = server::object(asked, &tar);
        answer.headers.retain(|(name, _)| *name == "Content-Range");
        Some(answer)
    });
    let place = Place::new();
    let url = format!("http://{}/data/x.tar", fake.address);
    let said = place.run(&format!("inspect {url} --cache kept"));
    let said = said.refused(2, "neither an ETag nor a time of its last change");
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    place.run(&format!("inspect {url}")).done();
}

#[test]
fn a_dataset_of_the_hub_is_read_through_its_cache() {
    let mut files: Vec<_> =
        png_files(7).into_iter().map(|(name, bytes)| (format!("{name}.png"), bytes)).collect();
    for (name, _) in &mut files {
        *name = name.replace(".png.png", ".png").replace("n ", "n");
    }
    let (hub, mut place) = hub(&files);
    let said = place.run("inspect hf://datasets/o/d --json").done();
    assert_eq!(said.json()["found"], 7, "{}", said.stdout);
    assert!(!said.stderr.contains("hf_secret") && !said.stderr.contains("downloading"), "{}", said.stderr);
    let prepare = |source: &str, out: &str| format!("prepare {source} {out} --size 8 --split none");
    place.run(&prepare("hf://datasets/o/d", "out")).done();
    place.run("verify out").done();
    let cache = place.path(".cache/huggingface/hub/datasets--o--d");
    assert_eq!(std::fs::read_to_string(cache.join("refs/main")).unwrap(), COMMIT);
    let (name, bytes) = &files[0];
    assert_eq!(&std::fs::read(cache.join("snapshots").join(COMMIT).join(name)).unwrap(), bytes);

    // The files of a commit, and their list, are asked for once; which commit it is, each time.
    let n = hub.state().requests.len();
    place.run(&prepare("hf://datasets/o/d", "again")).done();
    assert_eq!(hub.state().requests.len(), n + 1);
    place.run(&prepare(&format!("hf://datasets/o/d@{COMMIT}"), "at-commit")).done();
    assert_eq!(hub.state().requests.len(), n + 1);
    place.set("HF_HUB_OFFLINE", "1");
    place.run(&prepare("hf://datasets/o/d", "offline")).done();
    assert_eq!(hub.state().requests.len(), n + 1);
    for out in ["again", "at-commit", "offline"] {
        let shards = |out: &str| -> Vec<_> {
            place.files(out).into_iter().filter(|(name, _)| name.ends_with(".parquet")).collect()
        };
        assert!(shards(out) == shards("out"), "{out}");
    }
    place.run("inspect hf://datasets/o/other").refused(2, "HF_HUB_OFFLINE is set, and ");
}

#[test]
fn tar_files_of_the_hub_are_a_dataset_and_what_it_refuses_is_one_line() {
    let tars = tars();
    let named = |index: usize| format!("data/train-{index:03}.tar");
    let files: Vec<_> =
        tars.iter().enumerate().map(|(index, (_, bytes))| (named(index), bytes.clone())).collect();
    let (hub, mut place) = hub(&files);
    // The first download is cut, and goes on.
    hub.state().cut = Some(1000);
    let said = place.run("inspect hf://datasets/o/d/data/train-{000..002}.tar --json").done();
    assert_eq!(said.json()["found"], 12, "{}", said.stdout);
    place.run("inspect hf://datasets/o/d/none").refused(2, "o/d at main has no folder none");
    place.run("inspect hf://datasets/o/d@v9").refused(2, "o/d has no branch, tag or commit v9");
    place
        .run("prepare hf://datasets/o/d hf://datasets/o/e")
        .refused(2, "nothing is written to the Hugging Face");
    let said =
        place.run("inspect hf://datasets/o/none").refused(2, "has no repository o/none, or it is private");
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    place.set("HF_TOKEN", "hf_other");
    let said = place.run("inspect hf://datasets/o/d").refused(2, "has no repository o/d, or it is private");
    assert!(!said.stderr.contains("hf_other"), "{}", said.stderr);
    // What comes is compared with what the hub announced.
    let (hub, place) = self::hub(&files);
    hub.state().rubbish = Some(vec![0; files[0].1.len()]);
    let said = place.run("inspect hf://datasets/o/d/data/train-000.tar");
    said.refused(4, "train-000.tar of o/d is not what ");
}

#[test]
fn a_file_of_another_size_in_the_cache_of_the_hub_is_downloaded_again() {
    let tars = tars();
    let (hub, mut place) = hub(&[("data/x.tar".to_string(), tars[0].1.clone())]);
    let source = "hf://datasets/o/d/data/x.tar";
    place.run(&format!("inspect {source}")).done();
    let blobs = place.path(".cache/huggingface/hub/datasets--o--d/blobs");
    let blob = std::fs::read_dir(&blobs).unwrap().flatten().next().unwrap().path();
    let truncate = || std::fs::File::options().write(true).open(&blob).unwrap().set_len(3000).unwrap();
    truncate();
    place.run(&format!("inspect {source}")).done();
    assert_eq!(std::fs::read(&blob).unwrap(), tars[0].1);
    truncate();
    place.set("HF_HUB_OFFLINE", "1");
    let said = place.run(&format!("inspect {source}")).refused(4, "has 3000 bytes where ");
    assert!(said.stderr.contains(blob.to_str().unwrap()), "{}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    drop(hub);
}

#[test]
fn images_of_the_web_and_of_the_hub_are_predicted() {
    let place = Place::new();
    crate::evaluation::images(&place, 30);
    place.run(&format!("train in --out run {}", crate::evaluation::QUICK)).done();
    let files: Vec<_> = place.files("in").into_iter().collect();
    let fake = Fake::start(|_| None);
    let (name, bytes) = files[0].clone();
    fake.put(&format!("/data/{name}"), bytes);
    let url = format!("http://{}/data/{name}", fake.address);
    let said = place.run(&format!("predict run {url} --format jsonl")).done().json();
    assert_eq!(said["id"], url);
    let (_hub, other) = hub(&files);
    std::fs::create_dir(other.path("run")).unwrap();
    for (name, bytes) in place.files("run") {
        other.write(&format!("run/{name}"), &bytes);
    }
    for (images, n) in [("", 30), ("/dark", 10), (&*format!("/{}", files[0].0), 1)] {
        let said = other.run(&format!("predict run hf://datasets/o/d{images} --format jsonl")).done();
        assert_eq!(said.stdout.lines().count(), n, "{images}: {}", said.stderr);
    }
}

#[test]
fn what_a_place_lacks_is_said_in_words_of_its_own() {
    let fake = Fake::start(|asked| asked.path().ends_with("moved.tar").then(|| Answer::new(302, "")));
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    let at = format!("http://{}/data", fake.address);
    for (url, code, says) in [
        (format!("{at}/moved.tar"), 1, "moved.tar: it leads elsewhere, and names no web address"),
        (format!("{at}/train.tar#x"), 2, "a URL with a fragment (#..) names no file"),
        (format!("{at}/t-{{3..0}}.tar"), 2, "t-{3..0}.tar: numbers in braces go up: write {0..3}"),
    ] {
        let said = place.run_with(&["inspect", &url]).refused(code, says);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    }
    let (_hub, place) = hub(&[("data/x.tar".to_string(), tars().swap_remove(0).1)]);
    place.run("inspect hf://datasets/o/d/data/nope.tar").refused(2, "data/nope.tar: there is no such file");
    place.run("inspect nope.tar").refused(2, "nope.tar: there is no such file");
}

#[test]
fn a_tag_that_is_no_digest_where_others_are_is_told_from_bytes_that_change() {
    let fake = Fake::start(|asked| {
        // The MD5 of the first; the other two have none.
        let (tag, body) = match &*asked.path() {
            "/data/a" => ("0cc175b9c0f1b6a831c399e269772661", "a".to_string()),
            "/data/steady" => ("00000000000000000000000000000000", "b".to_string()),
            _ => ("00000000000000000000000000000000", asked.nth.to_string()),
        };
        Some(Answer::new(200, body).with("ETag", format!("\"{tag}\"")))
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Store::open(&format!("http://{}/data", fake.address), &StoreOptions::default()).unwrap();
    assert_eq!(runtime.block_on(store.get("a")).unwrap(), "a");
    for (key, says) in [("steady", "the same each time"), ("other", "something else each time")] {
        let said = runtime.block_on(store.get(key)).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a server of a test is not a node of a dataflow")]
fn a_web_server_that_says_nothing_is_waited_for_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        listener.incoming().flatten().for_each(|socket| held.push(socket));
    });
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.01");
    let began = std::time::Instant::now();
    let said = place.run(&format!("inspect http://{address}/x.tar"));
    said.refused(1, "the server does not answer");
    // Three minutes, and the silence that has begun by then.
    assert!(began.elapsed() < Duration::from_secs_f64(0.01 * 300.0), "{:?}", began.elapsed());
}

/// How many requests are answered at once, and the most that were.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[test]
fn a_storm_halves_the_requests_in_flight_and_they_grow_back() {
    const MOST: usize = 8;
    let gauge = Arc::new(Gauge::default());
    let is_storm = Arc::new(AtomicBool::new(false));
    let fake = Fake::start({
        let (gauge, is_storm) = (gauge.clone(), is_storm.clone());
        move |asked| {
            let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
            gauge.most.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(15));
            gauge.now.fetch_sub(1, Ordering::SeqCst);
            (is_storm.load(Ordering::SeqCst) && asked.nth < 2).then(|| Answer::refusal(503, "SlowDown"))
        }
    });
    for index in 0..100 {
        fake.put(&format!("/bucket/x{index}"), vec![index; 10]);
    }
    let options = StoreOptions {
        endpoint: Some(format!("http://{}", fake.address)),
        anonymous: true,
        requests_max: MOST,
        ..StoreOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Store::open("gs://bucket", &options).unwrap();
    // Reads objects, as many at once as anybody lets it, and says how many requests were answered at once.
    let read = |range: std::ops::Range<u8>| {
        gauge.most.store(0, Ordering::SeqCst);
        let one = |index: u8| {
            let store = &store;
            async move { assert_eq!(store.get(&format!("x{index}")).await.unwrap(), vec![index; 10]) }
        };
        runtime.block_on(futures::future::join_all(range.map(one)));
        gauge.most.load(Ordering::SeqCst)
    };
    assert_eq!(read(0..40), MOST);
    is_storm.store(true, Ordering::SeqCst);
    read(40..50);
    is_storm.store(false, Ordering::SeqCst);
    let after = read(0..MOST as u8);
    assert!(after < MOST, "{after} at once after the storm");
    // A round of answers adds one.
    for _ in 0..3 {
        read(0..40);
    }
    assert_eq!(read(0..40), MOST);
}

#[test]
fn opening_shards_in_a_bucket_costs_one_request_however_many_they_are() {
    let place_of_shards = Place::new();
    for (name, bytes) in png_files(30) {
        place_of_shards.write(&format!("in/{name}"), &bytes);
    }
    let options = "--size 8 --fit crop --encode png --samples-per-shard 3 --split none";
    place_of_shards.run(&format!("prepare in out {options}")).done();
    let fake = Fake::start(|_| None);
    let mut shards = 0;
    for (name, bytes) in place_of_shards.files("out") {
        shards += usize::from(name.starts_with("data/"));
        fake.put(&format!("/pictures/out/{name}"), bytes);
    }
    assert_eq!(shards, 10);
    let place = place(&fake, "gs");
    place.run("bench gs://pictures/out --size 8 --batch-size 4 --epochs 1 --repetitions 1").done();
    let asked: Vec<String> = fake.asked().iter().map(|asked| asked.path().to_string()).collect();
    let first = asked.iter().position(|path| path.contains("/data")).expect("rows are read");
    assert_eq!(first, 1, "{asked:?}");
    let rows = asked.iter().filter(|path| path.contains("/data")).count();
    // A pass to warm up, one that is measured, and one for the stages alone.
    assert!(rows <= 3 * shards, "no shard is asked for more than its rows, once in each pass: {asked:?}");
    // A shard that is missing is named by who wants its rows.
    fake.remove("/pictures/out/data/train-00004-of-00010.parquet");
    let said = place.run("bench gs://pictures/out --size 8 --batch-size 4 --epochs 1");
    assert!(said.code != 0 && said.stderr.contains("train-00004-of-00010.parquet"), "{}", said.stderr);
    assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
}

/// A table of so many images, each named by its address.
fn table_of_images(fake: &Fake, images: u8) -> String {
    let mut table = "file_name,label\n".to_string();
    for (name, bytes) in png_files(images) {
        table += &format!("{name},{}\n", &name[..1]);
        fake.put(&format!("/data/{name}"), bytes);
    }
    fake.put("/data/labels.csv", table.into_bytes());
    format!("http://{}/data/labels.csv", fake.address)
}

#[test]
fn a_server_that_answers_one_request_at_a_time_is_asked_one_at_a_time() {
    for status in [503, 429] {
        let gauge = Arc::new(Gauge::default());
        let fake = Fake::start({
            let gauge = gauge.clone();
            move |asked| {
                if !asked.path().ends_with(".png") {
                    return None;
                }
                let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
                gauge.most.fetch_max(now, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
                gauge.now.fetch_sub(1, Ordering::SeqCst);
                (now > 1).then(|| Answer::refusal(status, "SlowDown"))
            }
        });
        let url = table_of_images(&fake, 60);
        let mut place = Place::new();
        place.set("FOREBAY_PATIENCE", "0.03");
        let said = place.run(&format!("inspect {url} --json")).done().json();
        assert_eq!(
            (&said["found"], said["rejects"].as_array().map(Vec::len)),
            (&60.into(), Some(0)),
            "{said}"
        );
        assert!(gauge.most.load(Ordering::SeqCst) > 8, "it begins with many at once");
        // Of the later requests hardly one is refused: two are in flight for a moment, after each answer to one.
        let asked = fake.asked().iter().filter(|asked| asked.path().ends_with(".png")).count();
        assert!(asked < 60 * 8, "{asked} requests");
    }
}

#[test]
fn a_server_that_asks_to_be_left_alone_for_a_while_is_left_alone() {
    let began = Arc::new(std::sync::OnceLock::new());
    let fake = Fake::start({
        let began = began.clone();
        move |asked| {
            let began = began.get_or_init(std::time::Instant::now);
            // Far longer than all waits together, in the time of this test.
            let is_busy = asked.path().ends_with(".png") && began.elapsed() < Duration::from_secs(2);
            is_busy.then(|| Answer::refusal(503, "SlowDown").with("Retry-After", "1"))
        }
    });
    let url = table_of_images(&fake, 20);
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    place.run(&format!("inspect {url}")).done();
    let asked = fake.asked().iter().filter(|asked| asked.path().ends_with(".png")).count();
    assert!(asked <= 20 * 8, "{asked} requests");
}

#[test]
fn a_server_that_fails_for_ever_is_asked_ten_times_for_half_a_minute() {
    let fake =
        Fake::start(|asked| asked.path().ends_with(".tar").then(|| Answer::refusal(500, "InternalError")));
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.1");
    let began = std::time::Instant::now();
    let said = place.run(&format!("inspect http://{}/data/x.tar", fake.address));
    said.refused(1, "x.tar: the server answered 500 Internal Server Error (InternalError)");
    // A server may refuse HEAD alone, so that both are asked.
    assert_eq!(fake.asked().len(), 20);
    assert!(began.elapsed() > Duration::from_secs_f64(2.0 * 28.7 * 0.75 * 0.1), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_says_no_lengths_is_read() {
    for framing in [Framing::Chunks, Framing::Close] {
        let objects = Arc::new(std::sync::OnceLock::<Vec<(String, Vec<u8>)>>::new());
        let fake = Fake::start({
            let objects = objects.clone();
            move |asked| {
                let path = asked.path();
                let (_, bytes) = objects.get()?.iter().find(|(name, _)| path == format!("/data/{name}"))?;
                Some(Answer { framing, ..server::object(asked, bytes) })
            }
        });
        let url = table_of_images(&fake, 6);
        let mut all = png_files(6);
        all.push(("labels.csv".to_string(), fake.get("/data/labels.csv").unwrap()));
        all.push(("x.tar".to_string(), tars().swap_remove(0).1));
        objects.set(all).unwrap();
        let place = Place::new();
        let said = place.run(&format!("inspect {url} --json")).done().json();
        assert_eq!(
            (&said["found"], said["rejects"].as_array().map(Vec::len)),
            (&6.into(), Some(0)),
            "{said}"
        );
        place.run(&format!("inspect http://{}/data/x.tar", fake.address)).done();
    }
}

/// What an answer says of its part, written anew from its first and last byte and the total.
fn ranged(answer: Answer, say: impl Fn(&str, &str, &str) -> String) -> Answer {
    let headers = answer.headers.into_iter().map(|(name, value)| {
        let parts: Vec<&str> = value.trim_start_matches("bytes ").split(['-', '/']).collect();
        match (name, &parts[..]) {
            ("Content-Range", [first, last, total]) => (name, say(first, last, total)),
            _ => (name, value),
        }
    });
    Answer { headers: headers.collect(), ..answer }
}

#[test]
fn a_part_whose_total_nobody_says_is_one_and_a_part_of_it_is_asked_for_again() {
    let (_, bytes) = tars().swap_remove(0);
    let tar = bytes.clone();
    let fake = Fake::start(move |asked| {
        asked.header("range")?;
        Some(ranged(server::object(asked, &tar), |first, last, _| format!("bytes {first}-{last}/*")))
    });
    fake.put("/data/x.tar", bytes.clone());
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    let url = format!("http://{}/data/x.tar", fake.address);
    place.run(&format!("inspect {url}")).done();

    // Once for each part, and for ever.
    for times in [1, usize::MAX] {
        let tar = bytes.clone();
        let fake = Fake::start(move |asked| {
            let range = asked.header("range")?.to_string();
            let half = |first: &str, last: &str, total: &str| {
                let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
                format!("bytes {first}-{}/{total}", first + (last - first) / 2)
            };
            let is_hit = asked.nth < times && !range.ends_with("-0");
            is_hit.then(|| ranged(server::object(asked, &tar), half))
        });
        fake.put("/data/x.tar", bytes.clone());
        let url = format!("http://{}/data/x.tar", fake.address);
        let said = place.run(&format!("inspect {url}"));
        if times == 1 {
            said.done();
        } else {
            let said = said.refused(1, "x.tar: the server sent bytes 0-");
            assert!(said.stderr.contains("were asked for: check the address"), "{}", said.stderr);
        }
    }
}

#[test]
fn an_image_that_a_web_server_says_is_gone_is_a_reject() {
    let fake = Fake::start(|asked| asked.path().ends_with("n 3.png").then(|| Answer::page(410)));
    let url = table_of_images(&fake, 6);
    let said = Place::new().run(&format!("inspect {url} --json")).done().json();
    assert_eq!((&said["found"], said["rejects"].as_array().map(Vec::len)), (&6.into(), Some(1)), "{said}");
}

#[test]
fn no_message_holds_what_may_be_a_secret_of_a_url() {
    let place = Place::new();
    for arguments in [
        "prepare ftp://h/x?sig=GEHEIM out",
        "prepare ftp://me:GEHEIM@h/x?sig=GEHEIM out",
        "inspect hf://user:GEHEIM@datasets/o/n",
        "inspect hf://datasets/o/n?token=GEHEIM",
        "inspect hf://datasets/o/n/data?token=GEHEIM",
        "inspect https://me:GE?GEHEIM@host/x.tar",
        "inspect s3://bucket/x --anonymous --endpoint http://127.0.0.1:1?tok=GEHEIM",
    ] {
        let said = place.run(arguments);
        assert!(said.code == 2 && !said.stderr.contains("GEHEIM"), "{arguments}: {}", said.stderr);
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
    }
}

#[test]
fn percent_escapes_of_a_url_are_read_once_in_its_last_part_too() {
    let fake = Fake::start(|_| None);
    let tar = tars().swap_remove(0).1;
    fake.put("/data/a b+c#d/100%.tar", tar.clone());
    fake.put("/data/a b+c#d/x y-1.tar", tar);
    let place = Place::new();
    let at = format!("http://{}/data/a%20b+c%23d", fake.address);
    for file in ["100%25.tar", "100%.tar", "x%20y-1.tar", "x y-{1..1}.tar"] {
        place.run_with(&["inspect", &format!("{at}/{file}")]).done();
    }
    let (name, bytes) = png_files(1).swap_remove(0);
    place.write(&name, &bytes);
    place.write("a b/t 1.csv", format!("file_name,label\n../{name},a\n").as_bytes());
    let url = format!("file://{}/a%20b/t%201.csv", place.path("").display());
    let said = place.run_with(&["inspect", &url]);
    assert!(!said.stderr.contains("there is no such"), "{}", said.stderr);
}

#[test]
fn a_table_names_images_of_other_places_by_their_urls() {
    let fake = Fake::start(|_| None);
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    let url = |name: &str| format!("http://{}/pictures/{name}", fake.address);
    let (mut rows, mut same) = (String::from("url,label\n"), String::from("path,label\n"));
    for (n, (name, bytes)) in png_files(16).into_iter().enumerate() {
        fake.put(&format!("/pictures/{name}"), bytes.clone());
        place.write(&format!("same/{name}"), &bytes);
        rows += &format!("{},c{}\n", url(&name), n % 2);
        same += &format!("{name},c{}\n", n % 2);
    }
    place.write("same/list.csv", same.as_bytes());
    place.write("urls/list.csv", rows.as_bytes());
    // Whoever wrote the table may not send this machine to its own network.
    place.run("inspect urls/list.csv").refused(2, "no row of table list.csv");
    assert!(fake.asked().is_empty(), "a private server was asked");
    let prepare = "--size 8 --encode png --split none --order source --allow-private --json";
    let said = place.run(&format!("prepare urls out {prepare}")).done().json();
    assert_eq!((&said["found"], &said["written"]), (&16.into(), &16.into()), "{said}");
    place.run("prepare same of-same --layout table --size 8 --encode png --split none --order source").done();
    let id = url(&png_files(16)[3].0);
    let traced = place.run_with(&["trace", "out", &id, "--json"]).done().json();
    assert_eq!(traced["rows"][0]["source"], serde_json::Value::from(id.clone()));
    let images = |dest: &str| {
        let said = place.run(&format!("inspect {dest} --layout parquet --json")).done().json();
        (said["statistics"].clone(), said["classes"].clone())
    };
    assert_eq!(images("out"), images("of-same"));
    place.run("bench urls --size 8 --batch-size 4 --epochs 1 --allow-private").done();
    // What another place lacks or hides is a reject of one image, and no signature is shown.
    rows += &format!("{},c0\n{}?sig=geheim,c0\nfile:///etc/passwd,c1\n", url("gone.png"), url("1.png"));
    place.write("urls/list.csv", rows.as_bytes());
    let said = place.run("inspect urls --allow-private --json").done();
    assert!(!said.stdout.contains("geheim") && !said.stderr.contains("geheim"), "{}", said.stdout);
    let said = said.json();
    let reasons: Vec<&str> =
        said["rejects"].as_array().expect("rejects").iter().filter_map(|it| it["reason"].as_str()).collect();
    assert_eq!((&said["found"], reasons.len()), (&19.into(), 3), "{reasons:?}");
    for why in ["there is no such file", "a URL with a query", "images are read from"] {
        assert!(reasons.iter().any(|reason| reason.contains(why)), "{why}: {reasons:?}");
    }
}
