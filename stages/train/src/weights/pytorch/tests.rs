//! Files as PyTorch writes them, and as nobody should.

use candle_core::Tensor;

use super::super::stored::StoredTensor;
use super::*;

const VIEWS: &[u8] = include_bytes!("../testdata/views.pth");
const LEGACY: &[u8] = include_bytes!("../testdata/views-legacy.pth");
const CHECKPOINT: &[u8] = include_bytes!("../testdata/checkpoint.pth");
const MODULE: &[u8] = include_bytes!("../testdata/module.pth");

fn tensor<'a, 'b>(stored: &'b Stored<'a>) -> &'b StoredTensor<'a> {
    match stored {
        Stored::Tensor(tensor) => tensor,
        Stored::Unreadable(kind) => panic!("{kind}"),
    }
}

fn values(stored: &Stored<'_>) -> Vec<f32> {
    let tensor: Tensor = Tensor::from_vec(tensor(stored).values(), stored.shape(), &candle_core::Device::Cpu)
        .expect("as many values");
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
}

/// An archive with these files, as `torch.save` lays them out.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let at = bytes.len() as u32;
        let mut shared = [0u8; 26];
        for place in [14, 18] {
            shared[place..place + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
        }
        shared[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        bytes.extend_from_slice(b"PK\x03\x04");
        bytes.extend_from_slice(&shared);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(data);
        directory.extend_from_slice(b"PK\x01\x02\0\0");
        directory.extend_from_slice(&shared);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let at = bytes.len() as u32;
    let n = (files.len() as u16).to_le_bytes();
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&[n[0], n[1], n[0], n[1]]);
    bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&at.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

fn refusal(pickle: &[u8]) -> String {
    read(&archive(&[("a/data.pkl", pickle), ("a/data/0", &[0; 16])])).expect_err("it is refused")
}

#[test]
fn views_of_every_kind_come_out_as_pytorch_sees_them() {
    for bytes in [VIEWS, LEGACY] {
        let (tensors, under) = read(bytes).expect("torch.save wrote it");
        assert_eq!(under, None);
        let check = |name: &str, shape: &[usize], expected: &[f32]| {
            assert_eq!(tensors[name].shape(), shape, "{name}");
            assert_eq!(values(&tensors[name]), expected, "{name}");
        };
        let counting: Vec<f32> = (0..24).map(|n| n as f32).collect();
        check("plain.weight", &[2, 3, 4], &counting);
        let transposed: Vec<f32> = (0..6).flat_map(|c| (0..4).map(move |r| (r * 6 + c) as f32)).collect();
        check("transposed.weight", &[6, 4], &transposed);
        let permuted: Vec<f32> = (0..4)
            .flat_map(|k| (0..2).flat_map(move |i| (0..3).map(move |j| (i * 12 + j * 4 + k) as f32)))
            .collect();
        check("permuted.weight", &[4, 2, 3], &permuted);
        check("shared.a", &[2, 3], &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        check("shared.b", &[6], &[4.0, 7.0, 10.0, 13.0, 16.0, 19.0]);
        check("expanded.weight", &[2, 3], &[5.0, 5.0, 5.0, 6.0, 6.0, 6.0]);
        // 6e-8 is the smallest half-precision number that is not 0: 2 to the power of -24.
        check("half.weight", &[5], &[0.5, -2.0, 65504.0, 2f32.powi(-24), f32::INFINITY]);
        let large = f32::from_bits(3e38f32.to_bits() & 0xffff_0000);
        assert_eq!(values(&tensors["bfloat.weight"])[..2], [0.5, -2.0]);
        assert!((values(&tensors["bfloat.weight"])[2] / large - 1.0).abs() < 0.01);
        check("double.weight", &[2], &[0.1, 1e-3]);
        check("parameter.weight", &[2], &[1.0, 2.0]);
        check("scalar.weight", &[], &[3.5]);
        check("bn.num_batches_tracked", &[], &[7.0]);
        assert_eq!(tensors["empty.weight"].shape(), [0, 4]);
        assert_eq!(tensors.len(), 13);
    }
}

#[test]
fn the_state_dict_of_a_checkpoint_is_found() {
    let (tensors, under) = read(CHECKPOINT).expect("torch.save wrote it");
    assert_eq!(under.as_deref(), Some("state_dict"));
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(values(&tensors["weight"]), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_whole_network_is_refused_by_its_class() {
    let line = read(MODULE).expect_err("no state dict");
    assert!(line.contains("torch.nn.modules.linear.Linear") && line.contains("state_dict()"), "{line}");
}

#[test]
fn a_pickle_runs_no_code() {
    let marker = std::env::temp_dir().join(format!("forebay-pickle-{}", std::process::id()));
    let command = format!("touch {}", marker.display());
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    pickle.extend_from_slice(&(command.len() as u32).to_le_bytes());
    pickle.extend_from_slice(command.as_bytes());
    pickle.extend_from_slice(b"\x85R.");
    let line = refusal(&pickle);
    assert!(line.contains("posix.system") && line.contains("nothing was run"), "{line}");
    assert!(!marker.exists());
    for (module, name) in
        [("builtins", "eval"), ("os", "system"), ("subprocess", "Popen"), ("runpy", "_run_code")]
    {
        let line = refusal(format!("\u{0}c{module}\n{name}\n.").replace('\u{0}', "").as_bytes());
        assert!(line.contains(&format!("asks to run {module}.{name}")), "{line}");
    }
    // An unknown class is a name, not a call.
    assert!(refusal(b"cmy.project\nConfig\n)R.").contains("my.project.Config"));
}

#[test]
fn hostile_sizes_and_nesting_cost_nothing() {
    // A tensor of four values that says it has 2^62.
    let tensor = |size: &[u8], stride: &[u8]| {
        let mut pickle = b"}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0".to_vec();
        pickle.extend_from_slice(size);
        pickle.extend_from_slice(stride);
        pickle.extend_from_slice(b"\x89}tRs.");
        pickle
    };
    let huge = b"\x8a\x08\0\0\0\0\0\0\0\x40\x85";
    for stride in [b"K\0\x85".as_slice(), b"K\x01\x85", huge] {
        assert!(refusal(&tensor(huge, stride)).contains("more than a file of"));
    }
    assert!(refusal(&tensor(b"K\x05\x85", b"K\x01\x85")).contains("cut short"));
    assert!(refusal(&tensor(b"K\x02\x85", huge)).contains("cut short"));
    // An axis of one may have any stride.
    let file = archive(&[("a/data.pkl", &tensor(b"K\x01\x85", huge)), ("a/data/0", &[0; 16])]);
    let (tensors, _) = read(&file).expect("one value");
    assert_eq!(tensors["w"].shape(), [1]);
    // A hundred thousand tuples in each other would overflow a stack that follows them.
    let deep = |n| [vec![b')'], vec![0x85; n], vec![b'.']].concat();
    assert!(refusal(&deep(100_000)).contains("a list"));
    assert!(refusal(&deep(1_000_000)).contains("more objects than any network has"));
    // Lists that hold the one before twice would double with each copy.
    let doubling: Vec<u8> = std::iter::once(b')').chain([b'2', 0x86].repeat(100)).chain([b'.']).collect();
    assert!(refusal(&doubling).contains("a list"));
    assert!(refusal(&vec![b'N'; 1 << 22]).contains("objects"));
    assert!(refusal(b"X\xff\xff\xff\xff").contains("cut short"));
}

#[test]
fn names_in_an_archive_are_no_paths() {
    let line = read(&archive(&[("../../etc/passwd", b"x")])).expect_err("no weights");
    assert!(line.contains("not one of torch.save"), "{line}");
    let line = read(&archive(&[("a/data.pkl", b"."), ("b/data.pkl", b".")])).expect_err("two");
    assert!(line.contains("one data.pkl"), "{line}");
    let line = read(&archive(&[("a/data.pkl", b"."), ("a/constants.pkl", b"")])).expect_err("a program");
    assert!(line.contains("TorchScript"), "{line}");
    let mut packed = archive(&[("a/data.pkl", b".")]);
    let directory = packed.windows(4).position(|window| window == b"PK\x01\x02").expect("a directory");
    packed[directory + 10] = 8;
    assert!(read(&packed).expect_err("compressed").contains("compressed"));
}

#[test]
fn no_damage_is_a_panic() {
    for whole in [VIEWS, LEGACY, CHECKPOINT, MODULE] {
        for length in (0..whole.len()).step_by(7) {
            // What is cut short is always refused; a legacy file in its last values too.
            assert!(read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
        for place in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[place] ^= flip;
                // It may be read, where the damage is in a value or in what is not looked at.
                let _ = read(&damaged);
            }
        }
    }
}

/// The instructions that put a tensor of four values of this storage class.
fn four_of(class: &str) -> Vec<u8> {
    let mut pickle = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".to_vec();
    pickle.extend(format!("ctorch\n{class}\n").bytes());
    pickle.extend_from_slice(b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x04\x85K\x01\x85\x89}tR");
    pickle
}

/// A state dict with one object, `w`, that these instructions put.
fn state_dict(object: &[u8]) -> Vec<u8> {
    let pickle = [b"}X\x01\0\0\0w", object, b"s."].concat();
    let values: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    archive(&[("a/data.pkl", &pickle), ("a/data/0", &values)])
}

#[test]
fn a_tensor_with_attributes_or_of_a_class_of_its_own_is_a_tensor() {
    // What torch.save writes for a tensor with a Python attribute, and for one of a subclass: the function, the class, its
    // arguments, the attributes.
    for class in ["ctorch\nTensor\n", "ctorch.nn.parameter\nParameter\n", "cfastai.torch_core\nTensorBase\n"]
    {
        let plain = four_of("FloatStorage");
        let function = b"ctorch._utils\n_rebuild_tensor_v2\n";
        let arguments = &plain[function.len()..plain.len() - 1];
        let object = [
            b"ctorch._tensor\n_rebuild_from_type_v2\n(".as_slice(),
            function,
            class.as_bytes(),
            arguments,
            b"}X\x04\0\0\0noteX\x02\0\0\0histR",
        ];
        let object = object.concat();
        let file = state_dict(&object);
        let (held, _) = read(&file).expect("a tensor");
        assert_eq!(values(&held["w"]), [1.0, 2.0, 3.0, 4.0], "{class}");
    }
}

#[test]
fn what_is_no_plain_tensor_is_named() {
    let call = |function: &str| format!("c{}\n)R", function.replace(' ', "\n")).into_bytes();
    for (object, kind) in [
        (call("torch._utils _rebuild_sparse_tensor"), "a sparse tensor"),
        (call("torch._utils _rebuild_sparse_csr_tensor"), "a sparse tensor"),
        (call("torch._utils _rebuild_qtensor"), "a quantised tensor"),
        (call("torch._utils _rebuild_nested_tensor"), "a nested tensor"),
        (call("torch._utils _rebuild_meta_tensor_no_storage"), "a tensor without values"),
        (call("torch._utils _rebuild_tensor_v3"), "a tensor of an element type that is not known"),
        (call("torch._utils _rebuild_wrapper_subclass"), "a tensor of a class of its own"),
        (call("torch._tensor _rebuild_from_type_v2"), "a tensor of a class of its own"),
        (call("torch._utils _rebuild_something_new"), "a tensor in a form that is not known"),
        (call("numpy.core.multiarray _reconstruct"), "a NumPy array"),
        (four_of("ComplexFloatStorage"), "a tensor of complex numbers"),
        (four_of("QInt8Storage"), "a quantised tensor"),
        (four_of("UntypedStorage"), "a tensor of an element type that is not known"),
    ] {
        let file = state_dict(&object);
        let (held, _) = read(&file).expect("a state dict");
        assert!(matches!(held["w"], Stored::Unreadable(found) if found == kind), "{kind}: {:?}", held["w"]);
    }
}
