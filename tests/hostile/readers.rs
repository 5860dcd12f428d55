//! Every reader of bytes that come from others: what it is given, what it may take, and how it is called.

use bytes::Bytes;
use forebay::flow::in_one_line;
use forebay::hub::{Hub, Reference};
use forebay::options::Config;
use forebay::predictions::Predictions;
use forebay::report::{EpochMetrics, StepPoint, training_curves};
use forebay::weights;
use forebay_datasets::escape::is_printable;
use forebay_datasets::manifest::{Manifest, PlanRecord, Replacement};
use forebay_datasets::sample::Encoded;
use forebay_datasets::seed::Seed;
use forebay_datasets::shard::{self, Reject};
use forebay_datasets::store::{Page, Store};
use forebay_stages::chain::{Chain, Described};
use forebay_stages::decode::{Decode, Limits, probe};
use forebay_stages::normalize::Normalize;
use forebay_stages::stage::Stage;
use forebay_train::models::Head;
use forebay_train::{FileDescription, Predictor};
use futures::executor::block_on;

use super::originals;

/// Reads a file; what is wrong with it, in one line.
type Read = Box<dyn Fn(&[u8]) -> Result<(), String> + Send>;

/// A reader of one kind of file.
pub(super) struct Reader {
    pub(super) name: &'static str,
    pub(super) originals: Vec<Vec<u8>>,
    /// Whether its files are of words, so that words are changed too.
    pub(super) is_text: bool,
    /// Makes right again what a format checks of itself, so that what lies behind the check is read.
    pub(super) repair: fn(&[u8]) -> Vec<u8>,
    /// Bytes that it may allocate at a time: so many, and so many for each of the file. Where that is from, in words.
    pub(super) bytes_max: u64,
    pub(super) bytes_per_byte: u64,
    pub(super) limit: &'static str,
    /// How it is called.
    pub(super) read: Read,
}

const MIB: u64 = 1 << 20;

/// What a decoder may take in this test: small, so that sizes beyond it are drawn often.
const DECODE_BYTES_MAX: u64 = 4 * MIB;

fn as_it_is(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub(super) fn all() -> Vec<Reader> {
    let mut readers = images();
    readers.extend(weights_files());
    readers.extend(shards());
    readers.extend(predictions());
    readers.extend(datasets());
    readers.extend(runs());
    readers
}

fn images() -> Vec<Reader> {
    let decode = Decode {
        hashes: false,
        background: None,
        limits: Limits { memory_bytes_max: DECODE_BYTES_MAX, ..Limits::default() },
        ..Decode::default()
    };
    let image = |name, originals, repair| {
        let decode = decode.clone();
        Reader {
            name,
            originals,
            is_text: false,
            repair,
            // What decoders keep of their own: tables of codes, a palette, one chunk beside the image.
            bytes_max: DECODE_BYTES_MAX + 5 * MIB,
            bytes_per_byte: 3,
            limit: "decode.max_bytes (4 MiB here), a chunk of 4 MiB, 1 MiB of tables",
            read: Box::new(move |bytes| {
                let header = probe(bytes).map_err(|fault| fault.to_string());
                let encoded = Encoded { bytes: Bytes::copy_from_slice(bytes) };
                let pixels =
                    decode.apply(encoded, &Seed(0).draws("a", 0, 0)).map_err(|fault| fault.to_string())?;
                let header = header?;
                assert_eq!((header.width, header.height), (pixels.width, pixels.height), "the header lies");
                Ok(())
            }),
        }
    };
    vec![
        image("JPEG", originals::jpegs(), as_it_is),
        image("PNG", originals::pngs(), with_png_sums),
        image("TIFF", originals::tiffs(), as_it_is),
        image("PNM", originals::pnms(), as_it_is),
        image("WebP", originals::webps(), as_it_is),
        image("GIF", originals::gifs(), as_it_is),
        image("BMP", originals::bmps(), as_it_is),
    ]
}

/// The chunks of a PNG with the checksums that their bytes have.
fn with_png_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let Some(end) = (at + 8).checked_add(length).filter(|end| end + 4 <= bytes.len()) else { break };
        let sum = bytes[at + 4..end].iter().fold(!0u32, |sum, byte| {
            (0..8)
                .fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
        });
        bytes[end..end + 4].copy_from_slice(&(!sum).to_be_bytes());
        at = end + 4;
    }
    bytes
}

fn weights_files() -> Vec<Reader> {
    let load = |bytes: &[u8]| -> Result<(), String> {
        let chain = Chain::of_pixels(Normalize::UNIT);
        match Predictor::load("small", &Head::linear(2), bytes, chain).map_err(|error| in_one_line(&error)) {
            // The file is read, and of another network.
            Err(line)
                if line.starts_with("the weights lack ") || line.starts_with("the file is for another") =>
            {
                if is_printable(&line) {
                    Ok(())
                } else {
                    Err(line)
                }
            }
            read => read.map(drop),
        }
    };
    let describe = |bytes: &[u8]| -> Result<(), String> {
        let described = FileDescription::read(bytes).map_err(|error| in_one_line(&error))?;
        described.map_or(Ok(()), |described| described.chain().map(drop))
    };
    let limit = "64 MiB beyond the file";
    let reader = |name, originals, is_text, read: Read| Reader {
        name,
        originals,
        is_text,
        repair: as_it_is,
        bytes_max: 64 * MIB,
        bytes_per_byte: 1,
        limit,
        read,
    };
    vec![
        reader("PyTorch file, zip", originals::pytorch(), false, Box::new(load)),
        reader(
            "pickle",
            originals::pickles(),
            false,
            Box::new(move |bytes| load(&originals::archive(bytes))),
        ),
        reader(
            "safetensors header",
            originals::safetensors_headers(),
            true,
            Box::new(move |bytes| load(&originals::safetensors_file(bytes))),
        ),
        reader(
            "checkpoint's description",
            originals::safetensors_headers(),
            true,
            Box::new(move |bytes| describe(&originals::safetensors_file(bytes))),
        ),
    ]
}

/// Reads all of a shard: its end, its rows by groups and alone, and their names.
fn read_shard(file: &Bytes) -> Result<(), String> {
    let store = Store::memory();
    let standing = block_on(async {
        store.put("data/x", file.clone()).await.expect("room");
        shard::standing(&store, "data/x", file.len() as u64).await
    });
    standing.map_err(|error| error.to_string())?;
    let index = block_on(shard::read_index(&store, "data/x", file.len() as u64))
        .map_err(|error| error.to_string())?;
    let mut said = Ok(());
    let mut refused = |error: String| said = Err(error);
    for group in 0..index.footer().groups.len() {
        let range = index.group_range(group);
        let rows = index.rows(group, file.slice(range.start as usize..range.end as usize));
        match &rows {
            Ok(rows) => assert_eq!(rows.len(), index.footer().groups[group]),
            Err(error) => refused(in_one_line(error)),
        }
        for row in 0..index.footer().groups[group] {
            match block_on(shard::read_row(&store, "data/x", &index, group, row)) {
                Ok((alone, _)) => {
                    if let Ok(rows) = &rows {
                        assert_eq!(alone.bytes, rows[row].bytes, "a row is another when it is read alone");
                    }
                }
                Err(error) => refused(error.to_string()),
            }
        }
    }
    block_on(shard::read_identities(&store, "data/x", &index)).map_err(|error| error.to_string())?;
    said
}

/// Where the metadata of a shard begins.
fn metadata_start(file: &[u8]) -> usize {
    let length = file.len() - 8;
    length - u32::from_le_bytes(file[length..length + 4].try_into().expect("four bytes")) as usize
}

/// A file that says so much about itself.
fn with_metadata(data: &[u8], metadata: &[u8]) -> Bytes {
    [data, metadata, &(metadata.len() as u32).to_le_bytes(), b"PAR1"].concat().into()
}

/// Where the JSON of the footer stands in the metadata, its length in seven-bit bytes before it.
fn footer_json(metadata: &[u8]) -> std::ops::Range<usize> {
    let start = metadata.windows(14).position(|window| window == b"{\"fingerprint\"").expect("our key");
    let json: serde_json::StreamDeserializer<'_, _, serde_json::Value> =
        serde_json::Deserializer::from_slice(&metadata[start..]).into_iter();
    let mut json = json;
    json.next().expect("JSON").expect("JSON");
    start..start + json.byte_offset()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn shards() -> Vec<Reader> {
    let whole = originals::shard();
    let start = metadata_start(&whole);
    let (data, metadata) = (whole.slice(..start), whole.slice(start..whole.len() - 8));
    let json = footer_json(&metadata);
    let reader = |name, original: &[u8], is_text, read: Read| Reader {
        name,
        originals: vec![original.to_vec()],
        is_text,
        repair: as_it_is,
        bytes_max: 64 * MIB,
        bytes_per_byte: 256,
        limit: "8 MiB a column, eight columns; 256 bytes a byte of metadata",
        read,
    };
    let of_metadata = {
        let data = data.clone();
        move |bytes: &[u8]| read_shard(&with_metadata(&data, bytes))
    };
    let of_json = {
        let (before, after) = (metadata.slice(..json.start), metadata.slice(json.end..));
        let before = before.slice(..before.len() - varint(json.len()).len());
        let data = data.clone();
        move |bytes: &[u8]| {
            let metadata = [&before[..], &varint(bytes.len()), bytes, &after].concat();
            read_shard(&with_metadata(&data, &metadata))
        }
    };
    let of_data = {
        let (metadata, length) = (metadata.clone(), data.len());
        move |bytes: &[u8]| {
            let mut data = bytes.to_vec();
            data.resize(length, 0);
            read_shard(&with_metadata(&data, &metadata))
        }
    };
    vec![
        reader("shard", &whole, false, Box::new(|bytes| read_shard(&Bytes::copy_from_slice(bytes)))),
        reader("shard's metadata", &metadata, false, Box::new(of_metadata)),
        reader("shard's own footer", &metadata[json.clone()], true, Box::new(of_json)),
        reader("shard's pages", &data, false, Box::new(of_data)),
    ]
}

/// What `compare` reads.
fn predictions() -> Vec<Reader> {
    let whole = originals::predictions();
    let start = metadata_start(&whole);
    let (data, metadata) = (whole.slice(..start), whole.slice(start..whole.len() - 8));
    let read = |bytes: Bytes| {
        let found = Predictions::from_parquet("p.parquet", bytes).map_err(|error| in_one_line(&error))?;
        // A sample that comes twice is found here.
        found.scored(None, "p.parquet").map(drop).map_err(|error| in_one_line(&error))
    };
    let reader = |name, original: &[u8], read: Read| Reader {
        name,
        originals: vec![original.to_vec()],
        is_text: false,
        repair: as_it_is,
        bytes_max: 64 * MIB,
        bytes_per_byte: 256,
        limit: "8 MiB of values, 256 bytes a byte of the file",
        read,
    };
    let of_metadata = {
        let data = data.clone();
        move |bytes: &[u8]| read(with_metadata(&data, bytes))
    };
    let of_data = {
        let (metadata, length) = (metadata.clone(), data.len());
        move |bytes: &[u8]| {
            let mut data = bytes.to_vec();
            data.resize(length, 0);
            read(with_metadata(&data, &metadata))
        }
    };
    vec![
        reader("predictions", &whole, Box::new(move |bytes| read(Bytes::copy_from_slice(bytes)))),
        reader("predictions' metadata", &metadata, Box::new(of_metadata)),
        reader("predictions' pages", &data, Box::new(of_data)),
    ]
}

/// A file of ours with the checksum that its fields have.
fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
        return bytes.to_vec();
    };
    fields.remove("checksum");
    let sum = blake3::hash(&serde_json::to_vec(&fields).expect("JSON")).to_hex().to_string();
    fields.insert("checksum".to_string(), sum.into());
    serde_json::to_vec(&fields).expect("JSON")
}

fn datasets() -> Vec<Reader> {
    let text = |name, original: String, repair, read: Read| Reader {
        name,
        originals: vec![original.into_bytes()],
        is_text: true,
        repair,
        bytes_max: MIB,
        // A number of two bytes is a value of 72.
        bytes_per_byte: 256,
        limit: "256 bytes a byte of the file",
        read,
    };
    let checksum = "x";
    let manifest = serde_json::json!({
        "format": 4, "fingerprint": "abc", "classes": ["cat", "dög \u{1f600}"], "balanced": false,
        "augment": {"seed": 0, "changes": {"horizontal_flip": {"probability": 0.5}}, "is_rare": [false, true]},
        "chain": {"background": null, "resize": [], "jpeg_quality": 90, "normalize": null},
        "split_rule": {"by": "hash", "shares": [0.8, 0.1, 0.1], "seed": 7},
        "row_order": {"by": "shuffled", "seed": 3}, "stored_format": "jpeg", "settings": {"seed": 0, "a": [1.5, "b"]},
        "counts": {"found": 5, "written": 3, "rejected": 1, "dropped": 1, "rows": 4},
        "splits": [{"split": "train", "rows": 4, "bytes": 99, "side_px": 64,
            "classes": [{"name": "cat", "samples": 3, "rows": 4}]}],
        "shards": [{"key": "data/train-00000-of-00001.parquet", "split": "train", "fingerprint": "f", "bytes": 99,
            "blake3": "0".repeat(64), "groups": [4]}],
        "checksum": checksum,
    });
    let plan = serde_json::json!({
        "format": 4, "fingerprint": "abc", "settings": {"seed": 0}, "classes": ["cat"],
        "shards": [{"key": "data/train-00000-of-00001.parquet", "fingerprint": "f", "versions": "v"}],
        "assignment": {"rule": {"by": "declared"}, "train": ["a/1", "a/2"], "validation": ["a/3"], "test": []},
    });
    let next =
        serde_json::json!({"format": 4, "plan": plan, "delete": ["data/train-00000-of-00001.parquet"]});
    let sealed = |value: serde_json::Value| {
        String::from_utf8(with_checksum(&serde_json::to_vec_pretty(&value).expect("JSON"))).expect("UTF-8")
    };
    let listing = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
         <IsTruncated>true</IsTruncated><NextContinuationToken>n&amp;1</NextContinuationToken>\
         <Contents><Key>a//x.png</Key><Size>7</Size><ETag>&quot;t&quot;</ETag></Contents>\
         <Contents><Key>./z &lt;1&gt;.png</Key><Size>0</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>\
         </ListBucketResult>";
    let rejects = Reject::to_lines(&[
        Reject { id: "a/1.jpg".into(), stage: "decode".into(), reason: "truncated JPEG".into() },
        Reject { id: "a/\u{1f600}.jpg".into(), stage: "read".into(), reason: "denied".into() },
    ]);
    vec![
        text(
            "manifest.json",
            sealed(manifest),
            with_checksum,
            Box::new(|bytes| {
                let manifest = Manifest::parse(bytes).map_err(|error| error.to_string())?;
                // What is made of it where it is read.
                manifest.shards.iter().for_each(|shard| _ = shard.rows());
                drop(forebay_datasets::manifest::card(&manifest));
                Ok(())
            }),
        ),
        text(
            "plan.json",
            sealed(plan),
            with_checksum,
            Box::new(|bytes| PlanRecord::parse(bytes).map(drop).map_err(|error| error.to_string())),
        ),
        text(
            "plan.next.json",
            sealed(next),
            with_checksum,
            Box::new(|bytes| Replacement::parse(bytes).map(drop).map_err(|error| error.to_string())),
        ),
        text(
            "rejects.jsonl",
            rejects,
            as_it_is,
            Box::new(|bytes| {
                Reject::of_lines(&String::from_utf8_lossy(bytes));
                Ok(())
            }),
        ),
        text(
            "S3 listing",
            listing.to_string(),
            as_it_is,
            Box::new(|bytes| Page::parse(bytes).map(drop).map_err(|error| error.to_string())),
        ),
    ]
}

fn runs() -> Vec<Reader> {
    let text = |name, originals, read: Read| Reader {
        name,
        originals,
        is_text: true,
        repair: as_it_is,
        bytes_max: 2 * MIB,
        bytes_per_byte: 512,
        limit: "512 bytes a byte of the file",
        read,
    };
    let run_file = "source = \"images\"\nout = \"run\"\nseed = 3\n\n[resize]\nsize = 64\nfit = \"crop\"\ncrop_pct = 0.9\n\n\
        [split]\nshares = [0.8, 0.1, 0.1]\n\n\n[train]\narch = \"small\"\n\
        epochs = 3\nlearning_rate = 0.1\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\n";
    let epoch = |epoch: u32| {
        format!(
            "{{\"epoch\":{epoch},\"steps\":{},\"learning_rate\":0.1,\"train_loss\":1.5,\"train_accuracy\":0.4,\
             \"validation_loss\":1.25,\"validation_accuracy\":0.5,\"seconds\":1.5,\"images_per_second\":9.5}}\n\
             {{\"step\":1,\"epoch\":0.5,\"loss\":1.5,\"accuracy\":0.4,\"learning_rate\":0.1,\
             \"images_per_second\":9.5}}\n",
            10 * epoch
        )
    };
    let metrics: String = (1..4).map(epoch).collect();
    let timm = r#"{"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 224, 224],
        "crop_pct": 0.95, "crop_mode": "center", "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225], "label_names": ["a", "b"], "url": ""}}"#;
    let convnext = r#"{"do_normalize": true, "do_resize": true, "size": {"shortest_edge": 224}, "crop_pct": 0.875,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3, "image_processor_type": "X"}"#;
    let usual = r#"{"do_center_crop": true, "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256}, "do_rescale": true, "rescale_factor": 0.00392156862745098, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "resample": 2}"#;
    let chain = r#"{"background":[1,2,3],"resize":[{"side":64,"fit":"crop","crop_pct":0.9,"filter":"bicubic",
        "enlarge":true,"pad_color":[0,0,0]}],"jpeg_quality":90,"normalize":{"mean":[0.5,0.5,0.5],"std":[0.2,0.2,0.2]}}"#;
    let described = |found: Option<Described>| {
        let Some(Described { wanted, unknown }) = found else { return Ok(()) };
        assert!(wanted.side.is_none_or(|side| (1..=16_384).contains(&side)), "{:?}", wanted.side);
        assert!(wanted.crop_pct.is_none_or(|share| (0.05..=1.0).contains(&share)), "{:?}", wanted.crop_pct);
        assert!(wanted.normalize.is_none_or(|normalize| normalize.problems().is_empty()));
        if unknown.is_empty() { Ok(()) } else { Err(unknown.join("; ")) }
    };
    let json =
        |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error: serde_json::Error| error.to_string());
    vec![
        text(
            "run file (TOML)",
            vec![originals::text(run_file)],
            Box::new(|bytes| {
                let text = String::from_utf8_lossy(bytes);
                let resolved = Config::resolve(Some(("run.toml", &text)), &[], &[]);
                resolved.map(drop).map_err(|problems| problems.0.join("; "))
            }),
        ),
        text(
            "metrics.jsonl",
            vec![metrics.into_bytes()],
            Box::new(|bytes| {
                let epochs = EpochMetrics::of_lines(bytes);
                let points = StepPoint::of_lines(bytes);
                training_curves(&epochs, &points);
                if epochs.len() < 3 { Err("a line is lost".to_string()) } else { Ok(()) }
            }),
        ),
        text(
            "config.json of timm",
            vec![originals::text(timm)],
            Box::new(move |bytes| described(Described::from_timm(&json(bytes)?))),
        ),
        text(
            "preprocessor_config.json",
            vec![originals::text(convnext), originals::text(usual)],
            Box::new(move |bytes| described(Described::from_transformers(&json(bytes)?))),
        ),
        text(
            "chain of a model",
            vec![originals::text(chain)],
            Box::new(|bytes| {
                let metadata = [("chain".to_string(), String::from_utf8_lossy(bytes).into_owned())].into();
                let (model, head) = ("small".to_string(), Head::linear(2));
                let described =
                    FileDescription { model, classes: vec![], head, step: 0, optimizer: None, metadata };
                described.chain().map(drop)
            }),
        ),
        beside_weights(timm, usual),
        hub_cache(),
    ]
}

/// The door of `--weights`: a file, and what lies beside it.
fn beside_weights(timm: &str, usual: &str) -> Reader {
    let folder = tempfile::tempdir().expect("a folder");
    let values = [1u8; 8];
    let tensor =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &values).expect("it fits");
    let file = safetensors::serialize([("fc.bias", tensor)], None).expect("room");
    std::fs::write(folder.path().join("model.safetensors"), file).expect("a file of the test");
    let name = folder.path().join("model.safetensors").to_string_lossy().into_owned();
    let config = Config::resolve(None, &[], &[]).expect("defaults");
    Reader {
        name: "folder of weights",
        originals: vec![originals::text(timm), originals::text(usual)],
        is_text: true,
        repair: as_it_is,
        bytes_max: 2 * MIB,
        bytes_per_byte: 512,
        limit: "512 bytes a byte of the file",
        read: Box::new(move |bytes| {
            for beside in ["config.json", "preprocessor_config.json"] {
                std::fs::write(folder.path().join(beside), bytes).expect("a file of the test");
            }
            let initial = block_on(weights::from(&name, &config)).map_err(|error| error.to_string())?;
            let applied = weights::apply(&config, &initial).map_err(|error| error.to_string())?;
            assert!(applied.integer("resize.size").is_none_or(|side| side <= 16_384));
            if initial.warnings.is_empty() { Ok(()) } else { Err(initial.warnings.join("; ")) }
        }),
    }
}

/// A revision in the cache of the hub, which names a commit.
fn hub_cache() -> Reader {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("hub/models--a--b");
    std::fs::create_dir_all(repository.join("refs")).expect("a folder");
    std::fs::create_dir_all(repository.join("snapshots").join(COMMIT)).expect("a folder");
    std::fs::write(repository.join("snapshots").join(COMMIT).join("w"), "x").expect("a file of the test");
    let variables =
        [("HF_HOME", folder.path().to_string_lossy().into_owned()), ("HF_HUB_OFFLINE", "1".to_string())];
    let hub = Hub::from_variables(&|name| {
        variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone())
    });
    let reference = Reference::parse("hf:a/b").expect("hf").expect("sound");
    Reader {
        name: "refs of the hub's cache",
        originals: vec![format!("{COMMIT}\n").into_bytes()],
        is_text: true,
        repair: as_it_is,
        bytes_max: MIB,
        bytes_per_byte: 4,
        limit: "4 bytes a byte of the file",
        read: Box::new(move |bytes| {
            let _ = &folder;
            std::fs::write(repository.join("refs/main"), bytes).expect("a file of the test");
            block_on(hub.find(&reference, &["w"])).map(drop).map_err(|error| error.to_string())
        }),
    }
}
