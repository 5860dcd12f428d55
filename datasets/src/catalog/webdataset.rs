//! WebDataset: tar files in which members of one name and different extensions are one sample.
//!
//! The key of a member is its name up to the first dot after the last slash; consecutive members of one key are a sample,
//! as in WebDataset's own `base_plus_ext`. Extensions are compared in lower case.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::gathered::{FoundSample, Gathered, broken, class_name, id_of_copy, split_of_path};
use super::kept;
use super::listing::{File, is_image_extension};
use super::rows::value_of;
use super::tar::{Member, TarError, members};
use super::{Layout, LayoutKind, LayoutOptions, Locator, Misfit, NamedColumns, Reading, Source};
use crate::columns::Value;
use crate::escape::escape_text;
use crate::store::{Store, StoreError, Version};

/// Tar files that are looked at at once.
const AT_ONCE: usize = 16;

/// Bytes of a member that may hold a label and are kept in the index; a larger one is no label.
const LABEL_BYTES_MAX: u64 = 64 << 10;

/// Where a label may stand in `.json`, the first first.
const JSON_KEYS: [&str; 5] = ["class_name", "label_name", "label", "cls", "class"];

/// Tar files of samples.
pub(super) struct WebDataset;

impl Layout for WebDataset {
    fn kind(&self) -> LayoutKind {
        LayoutKind::WebDataset
    }

    fn looks_for(&self) -> &'static str {
        "tar files of KEY.jpg beside KEY.cls or KEY.json (WebDataset)"
    }

    fn finds(&self, source: &Source<'_>) -> Option<String> {
        match &source.files_called(&["tar"])[..] {
            [] => None,
            [one] => Some(one.id.to_string()),
            several => Some(format!("{} tar files", several.len())),
        }
    }

    fn columns(&self) -> NamedColumns {
        NamedColumns::ALL
    }

    fn read<'a>(&'a self, source: &'a Source<'a>) -> Reading<'a> {
        Box::pin(async move {
            let files = source.files_called(&["tar"]);
            let indexes: Vec<_> = files.iter().map(|file| index(source, file)).collect();
            let mut indexes = futures::stream::iter(indexes).buffered(AT_ONCE);
            let mut found =
                Gathered { layout: format!("WebDataset, {} tar files", files.len()), ..Gathered::default() };
            for file in &files {
                let members = indexes.next().await.expect("one for each file")?;
                add(&mut found, file, members, source.options);
            }
            found.classes.extend(named_classes(source, &found).await?);
            found.kept_columns.clone_from(&source.options.keep_columns);
            let is_absent = |at: &usize| {
                let has =
                    |sample: &FoundSample| sample.kept.as_ref().is_some_and(|kept| kept[*at] != Value::Null);
                !found.samples.iter().any(has)
            };
            if let Some(at) = (0..found.kept_columns.len()).find(is_absent) {
                let key = &found.kept_columns[at];
                return Err(broken(format!(
                    "{}: no .json of its samples has a key `{key}`",
                    source.store.location()
                )));
            }
            found.into_contents()
        })
    }
}

/// The classes that `classes.txt` beside the tar files names, as Forebay writes it: also those without a sample. What names not
/// all classes of the samples is no such list.
async fn named_classes(source: &Source<'_>, found: &Gathered) -> Result<Vec<Arc<str>>, StoreError> {
    let folder =
        |file: &File| file.id.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_string());
    let Some(tars) = source.files_called(&["tar"]).first().map(|tar| folder(tar)) else {
        return Ok(Vec::new());
    };
    let is_list =
        |file: &&File| file.base_name() == "classes.txt" && folder(file) == tars && file.fault.is_none();
    let Some(file) = source.listing.files.iter().find(is_list).filter(|file| file.bytes <= CLASSES_BYTES_MAX)
    else {
        return Ok(Vec::new());
    };
    let bytes = source.store.read_whole(&file.name, file.bytes).await?;
    let names: Vec<Arc<str>> = String::from_utf8_lossy(&bytes).lines().filter_map(class_name).collect();
    let is_complete =
        found.samples.iter().filter_map(|sample| sample.class.as_ref()).all(|class| names.contains(class));
    Ok(if is_complete { names } else { Vec::new() })
}

/// Bytes of a list of classes.
const CLASSES_BYTES_MAX: u64 = 1 << 20;

/// What is kept of a tar file for the next time.
#[derive(Serialize, Deserialize)]
struct KeptIndex {
    members: Vec<Member>,
}

/// The members of a tar file, from the index of an earlier run where the file is unchanged since.
async fn index(source: &Source<'_>, file: &File) -> Result<Vec<Member>, Misfit> {
    let kept = source.options.index_folder.as_deref().and_then(|folder| {
        let known = file.version != Version::UNKNOWN;
        known.then(|| folder.join(index_name(source.store, file)))
    });
    if let Some(members) = kept.as_deref().and_then(read_index) {
        return Ok(members);
    }
    let found = members(source.store, &file.name, file.bytes, is_label).await;
    let members = found.map_err(|error| match error {
        TarError::Store(error) => error.into(),
        TarError::Damaged(what) => broken(format!("cannot read {}: {what}", source.name(file))),
    })?;
    if let Some(kept) = kept {
        // The next run looks again where this one could not keep it.
        let _ = write_index(&kept, &members);
    }
    Ok(members)
}

/// Members whose data the index keeps.
fn is_label(name: &str, bytes: u64) -> bool {
    bytes <= LABEL_BYTES_MAX && !is_image_extension(&split(name).1)
}

fn index_name(store: &Store, file: &File) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in
        ["tar index 1", store.location(), &*file.id, &file.bytes.to_string(), &file.version.to_string()]
    {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    format!("{}.json", &hasher.finalize().to_hex()[..32])
}

fn read_index(path: &Path) -> Option<Vec<Member>> {
    let bytes = fs::read(path).ok()?;
    Some(serde_json::from_slice::<KeptIndex>(&bytes).ok()?.members)
}

/// Written beside its place and moved there, so that no reader sees half of it.
fn write_index(path: &Path, members: &[Member]) -> std::io::Result<()> {
    let json = serde_json::to_vec(&KeptIndex { members: members.to_vec() })?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&beside, json)?;
    fs::rename(beside, path)
}

/// The key of a member and its extension, in lower case.
fn split(name: &str) -> (&str, String) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], name[base + dot + 1..].to_lowercase()),
        None => (name, String::new()),
    }
}

/// Adds the samples of a tar file.
fn add(found: &mut Gathered, file: &File, members: Vec<Member>, options: &LayoutOptions) {
    let split_of_file = split_of_path(&file.id);
    found.splits.extend(split_of_file);
    let mut keys: HashMap<String, u32> = HashMap::new();
    // Passed over, as by webdataset: what macOS writes beside each file (`._1.jpg`), and hidden files.
    let (keyless, members): (Vec<Member>, Vec<Member>) = members
        .into_iter()
        .partition(|member| member.name.rsplit('/').next().unwrap_or_default().starts_with('.'));
    keyless.iter().for_each(|_| found.ignore("(members of tar files without a key)"));
    let mut rest = &members[..];
    while let Some(first) = rest.first() {
        let (key, _) = split(&first.name);
        let n = rest.iter().take_while(|member| split(&member.name).0 == key).count();
        let (sample, after) = rest.split_at(n);
        rest = after;
        let base = key.rsplit('/').next().unwrap_or(key);
        if base.starts_with("__") && base.ends_with("__") {
            continue;
        }
        let earlier = keys.entry(key.to_string()).or_default();
        *earlier += 1;
        if let Some((id, reason)) = (*earlier > 1).then(|| {
            let id = format!("{}/{} ({earlier})", file.id, escape_text(key));
            (id, "another sample before it has the same key".to_string())
        }) {
            found.reject(id.into(), reason);
            continue;
        }
        match image_of(sample, options) {
            Ok(None) => found.ignore("(samples of tar files without an image)"),
            Ok(Some(image)) => {
                let name = image.name.trim_start_matches("./");
                let json = member_called(sample, "json").and_then(|member| member.data.as_deref());
                let Ok(json) = json.map(serde_json::from_str::<Json>).transpose() else {
                    found.reject(format!("{}/{}", file.id, escape_text(name)).into(), "its .json is no JSON");
                    continue;
                };
                let own_id = json.as_ref().and_then(|json| {
                    let copy = json.get("copy").and_then(Json::as_i64).unwrap_or(0);
                    id_of_copy(json.get(ID_KEY)?.as_str()?, copy)
                });
                let id = format!("{}/{}", file.id, escape_text(name)).into();
                let range = image.start..image.start + image.bytes;
                let locator = Locator::range(file.name.clone(), range, file.bytes)
                    .expect("a member lies inside of its file");
                let kept = options.keep_columns.iter();
                let kept = kept.map(|key| value_of(json.as_ref().and_then(|json| json.get(key)))).collect();
                let class = class_of(sample, json.as_ref(), options);
                match class.and_then(|class| Ok((class, kept::values(kept, options)?))) {
                    Ok((class, kept)) => found.samples.push(FoundSample {
                        id,
                        own_id,
                        class,
                        split: split_of_file,
                        locator,
                        version: file.version,
                        kept,
                    }),
                    Err(reason) => found.reject(id, reason),
                }
            }
            Err((member, reason)) => {
                found.reject(format!("{}/{}", file.id, escape_text(&member.name)).into(), reason);
            }
        }
    }
}

/// The key of `.json` under which the id of a sample stands in tar files that Forebay wrote.
pub(crate) const ID_KEY: &str = "forebay_id";

fn member_called<'a>(sample: &'a [Member], extension: &str) -> Option<&'a Member> {
    sample.iter().find(|member| split(&member.name).1 == extension)
}

/// The image of a sample, if it has one.
fn image_of<'a>(
    sample: &'a [Member],
    options: &LayoutOptions,
) -> Result<Option<&'a Member>, (&'a Member, String)> {
    let is_wanted = |member: &&Member| {
        let extension = split(&member.name).1;
        match &options.image_column {
            Some(wanted) => extension == wanted.trim_start_matches('.').to_lowercase(),
            None => is_image_extension(&extension),
        }
    };
    let mut images = sample.iter().filter(is_wanted);
    let Some(image) = images.next() else { return Ok(None) };
    if let Some(oddity) = &image.oddity {
        return Err((image, format!("it is {oddity} and not a file")));
    }
    let is_outside = image.name.starts_with('/') || image.name.split('/').any(|part| part == "..");
    if is_outside {
        return Err((image, "its name leads out of the tar file".to_string()));
    }
    match images.next() {
        None => Ok(Some(image)),
        Some(other) if split(&other.name).1 == split(&image.name).1 => {
            Err((image, "its key has two members of one extension".to_string()))
        }
        Some(other) => Err((
            image,
            format!(
                "its key has several images, .{} and .{}: say which (--image-column)",
                split(&image.name).1,
                split(&other.name).1
            ),
        )),
    }
}

/// The class of a sample; `None` where nothing says it.
fn class_of(
    sample: &[Member],
    json: Option<&Json>,
    options: &LayoutOptions,
) -> Result<Option<Arc<str>>, String> {
    let text = |extension: &str| {
        let Some(member) = member_called(sample, extension) else { return Ok(None) };
        match &member.data {
            Some(data) => Ok(class_name(data)),
            None => Err(format!("its .{extension} is no text of a class")),
        }
    };
    if let Some(wanted) = &options.label_column {
        let wanted = wanted.trim_start_matches('.');
        return match wanted.strip_prefix("json.").or(json.and_then(|json| json.get(wanted)).map(|_| wanted)) {
            Some(key) => class_of_json(json, key),
            None => text(&wanted.to_lowercase()),
        };
    }
    // A name says more than a number.
    let key = JSON_KEYS.into_iter().find(|key| json.is_some_and(|json| json.get(key).is_some()));
    match key {
        Some(key) if json.is_some_and(|json| json[key].is_string()) => class_of_json(json, key),
        _ => match text("cls")? {
            Some(class) => Ok(Some(class)),
            None => match key {
                Some(key) => class_of_json(json, key),
                None => text("txt"),
            },
        },
    }
}

fn class_of_json(json: Option<&Json>, key: &str) -> Result<Option<Arc<str>>, String> {
    match json.and_then(|json| json.get(key)) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(name)) => Ok(class_name(name)),
        Some(Json::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(class_name(&number.to_string()))
        }
        Some(Json::Bool(value)) => Ok(class_name(&value.to_string())),
        Some(Json::Number(number)) => {
            Err(format!("its label {number} is a number with a fraction and no class"))
        }
        Some(Json::Array(_) | Json::Object(_)) => {
            Err(format!("`{key}` of its .json holds several labels, and a sample has one class"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tar::tests::tar;
    use super::*;
    use crate::catalog::{Catalog, read};
    use futures::executor::block_on;

    fn catalog(files: &[(&str, Vec<u8>)], options: &LayoutOptions) -> Result<Catalog, String> {
        let store = Store::memory();
        for (name, bytes) in files {
            block_on(store.put(name, bytes.clone().into())).expect("an object");
        }
        let catalog = block_on(read(&store, options)).map_err(|error| error.to_string())?;
        for entry in catalog.entries() {
            let bytes = block_on(entry.locator.read(&store)).expect("a sample");
            assert!(bytes.starts_with(b"image"), "{}", entry.id);
        }
        Ok(catalog)
    }

    fn summary(catalog: &Catalog) -> Vec<String> {
        let of = |entry: &crate::catalog::Entry| {
            let split = entry.split.map_or("-", |split| split.name());
            format!("{} {} {split}", entry.id, catalog.classes()[entry.label as usize])
        };
        catalog.entries().iter().map(of).collect()
    }

    fn both(options: &LayoutOptions, members: &[(&str, u8, &[u8])]) -> (Vec<String>, Vec<String>) {
        let catalog = catalog(&[("a.tar", tar(members))], options).expect("a catalog");
        let rejects = catalog.rejects().iter().map(|(id, fault)| format!("{id}: {}", fault.reason)).collect();
        (summary(&catalog), rejects)
    }

    #[test]
    fn members_of_one_key_are_a_sample_and_tars_say_their_split() {
        let train = tar(&[
            ("b/1.JPG", b'0', b"image"),
            ("b/1.cls", b'0', b"10\n"),
            ("b/2.jpg", b'0', b"image"),
            ("b/2.json", b'0', br#"{"label": 2, "class_name": "owl"}"#),
            ("__meta__.json", b'0', b"{}"),
            ("notes.txt", b'0', b"text"),
        ]);
        let val = tar(&[("./1.png", b'0', b"image"), ("./1.cls", b'0', b"owl")]);
        let found = catalog(&[("x-train-0.tar", train), ("val/0.tar", val)], &LayoutOptions::default());
        let found = found.expect("a catalog");
        assert_eq!(
            summary(&found),
            [
                "val/0.tar/1.png owl validation",
                "x-train-0.tar/b/1.JPG 10 train",
                "x-train-0.tar/b/2.jpg owl train"
            ]
        );
        assert_eq!(found.layout(), "WebDataset, 2 tar files");
        assert_eq!(found.ignored().values().sum::<u64>(), 1);
    }

    #[test]
    fn a_label_stands_where_the_options_say() {
        let sample: &[(&str, u8, &[u8])] = &[
            ("1.jpg", b'0', b"image"),
            ("1.cls", b'0', b"7"),
            ("1.txt", b'0', b"a cat"),
            ("1.json", b'0', br#"{"breed": "tabby", "tags": ["a"]}"#),
        ];
        let with = |column: &str| LayoutOptions {
            label_column: Some(column.to_string()),
            ..LayoutOptions::default()
        };
        for (column, class) in [("txt", "a cat"), ("breed", "tabby"), ("json.breed", "tabby"), (".cls", "7")]
        {
            assert_eq!(both(&with(column), sample).0, [format!("a.tar/1.jpg {class} -")], "{column}");
        }
        let error = catalog(&[("a.tar", tar(sample))], &with("tags")).expect_err("several labels");
        assert!(error.contains("`tags` of its .json holds several labels"), "{error}");
        let error = catalog(&[("a.tar", tar(sample))], &with("none")).expect_err("no labels");
        assert!(error.contains("none of its 1 images has a label, such as a.tar/1.jpg"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_sample_is_named() {
        let (samples, rejects) = both(
            &LayoutOptions::default(),
            &[
                ("ok.jpg", b'0', b"image"),
                ("ok.cls", b'0', b"1"),
                ("link.jpg", b'2', b""),
                ("link.cls", b'0', b"1"),
                ("../up.jpg", b'0', b"image"),
                ("../up.cls", b'0', b"1"),
                ("/etc/x.jpg", b'0', b"image"),
                ("two.jpg", b'0', b"image"),
                ("two.png", b'0', b"image"),
                ("ok.jpg", b'0', b"image"),
                ("twice.jpg", b'0', b"image"),
                ("twice.jpg", b'0', b"image"),
            ],
        );
        assert_eq!(samples, ["a.tar/ok.jpg 1 -"]);
        assert_eq!(
            rejects,
            [
                "a.tar/../up.jpg: its name leads out of the tar file",
                "a.tar//etc/x.jpg: its name leads out of the tar file",
                "a.tar/link.jpg: it is a symbolic link and not a file",
                "a.tar/ok (2): another sample before it has the same key",
                "a.tar/twice.jpg: its key has two members of one extension",
                "a.tar/two.jpg: its key has several images, .jpg and .png: say which (--image-column)",
            ]
        );
    }

    #[test]
    fn a_list_of_classes_keeps_those_without_a_sample_and_copies_have_ids_of_their_own() {
        let json =
            |copy: u32| format!("{{\"forebay_id\": \"x/1.jpg\", \"copy\": {copy}, \"class_name\": \"cat\"}}");
        let (first, second) = (json(0), json(1));
        let file = tar(&[
            ("0.jpg", b'0', b"image"),
            ("0.json", b'0', first.as_bytes()),
            ("1.jpg", b'0', b"image"),
            ("1.json", b'0', second.as_bytes()),
        ]);
        let of = |list: &str| {
            let files = [("data/train-0.tar", file.clone()), ("data/classes.txt", list.as_bytes().to_vec())];
            catalog(&files, &LayoutOptions::default()).expect("a catalog")
        };
        let found = of("ant\ncat\n");
        let ids: Vec<&str> = found.entries().iter().map(|entry| &*entry.id).collect();
        assert_eq!(
            (found.classes(), &ids[..]),
            (&["ant".to_string(), "cat".to_string()][..], &["x/1.jpg", "x/1.jpg (copy 1)"][..])
        );
        // A list of something else.
        assert_eq!(of("ant\nbee\n").classes(), ["cat"]);
    }

    #[test]
    fn a_text_is_a_label_where_nothing_else_is() {
        let (samples, _) = both(
            &LayoutOptions::default(),
            &[
                ("1.jpg", b'0', b"image"),
                ("1.txt", b'0', b"cat"),
                ("2.jpg", b'0', b"image"),
                ("2.txt", b'0', b"dog"),
            ],
        );
        assert_eq!(samples, ["a.tar/1.jpg cat -", "a.tar/2.jpg dog -"]);
    }

    #[test]
    fn members_without_a_key_part_no_sample_and_json_that_is_none_is_a_reject() {
        let (samples, rejects) = both(
            &LayoutOptions::default(),
            &[
                ("._1.jpg", b'0', b"resource"),
                ("1.jpg", b'0', b"image"),
                ("._1.cls", b'0', b"resource"),
                ("1.cls", b'0', b"3"),
                (".DS_Store", b'0', b"x"),
                ("a/.x.cls", b'0', b"7"),
                ("2.jpg", b'0', b"image"),
                ("2.json", b'0', b"{\"label\": "),
            ],
        );
        assert_eq!(samples, ["a.tar/1.jpg 3 -"]);
        assert_eq!(rejects, ["a.tar/2.jpg: its .json is no JSON"]);
    }

    #[test]
    fn an_index_is_kept_and_used_while_the_file_is_unchanged() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.tar");
        fs::write(&path, tar(&[("1.jpg", b'0', b"image"), ("1.cls", b'0', b"x")])).expect("a file");
        let location = folder.path().to_str().expect("UTF-8");
        let store = Store::open(location, &crate::store::StoreOptions::default()).expect("opens");
        let options =
            LayoutOptions { index_folder: Some(index.path().to_path_buf()), ..LayoutOptions::default() };
        let first = block_on(read(&store, &options)).expect("a catalog");
        let kept: Vec<_> =
            fs::read_dir(index.path()).expect("it").map(|file| file.expect("one").path()).collect();
        assert_eq!(kept.len(), 1);
        // What the index says is believed: an entry that was changed in it comes back.
        let text = fs::read_to_string(&kept[0]).expect("an index");
        fs::write(&kept[0], text.replace("1.jpg", "2.jpg").replace("1.cls", "2.cls")).expect("a file");
        let second = block_on(read(&store, &options)).expect("a catalog");
        assert_eq!(
            (summary(&first), summary(&second)),
            (vec!["a.tar/1.jpg x -".into()], vec!["a.tar/2.jpg x -".into()])
        );
        // A damaged one is made anew, and so is that of a file that was changed.
        fs::write(&kept[0], "{").expect("a file");
        assert_eq!(summary(&block_on(read(&store, &options)).expect("a catalog")), summary(&first));
    }
}
