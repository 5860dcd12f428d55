//! Forebay's own JPEG decoder on any bytes: no panic, no overflow, nothing read or written outside of what it holds, the same
//! pixels with vectors as without, of a part the pixels that the whole image has there, and of a part that is made smaller what is made
//! of it when all of it is there.
#![no_main]

use forebay_datasets::sample::Encoded;
use forebay_stages::decode::fuzzing::{OwnJpeg, own_jpeg};
use forebay_stages::decode::{Decode, DecodeScale};
use forebay_stages::resample::{Filter, View};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first bytes say which part, the rest is the file.
    let Some((&[left_byte, top_byte, across, down, reduced], file)) = data.split_first_chunk() else { return };
    let Some(OwnJpeg { width, height, pixels }) = own_jpeg(file, None, 1, true) else { return };
    let scalar = own_jpeg(file, None, 1, false).expect("as with vectors");
    assert!(scalar.pixels == pixels, "vectors and single numbers differ");
    let share = |of: u8, length: usize| usize::from(of) * length / 256;
    let (left, top) = (share(left_byte, width), share(top_byte, height));
    let (across, down) = (1 + share(across, width - left), 1 + share(down, height - top));
    let part = own_jpeg(file, Some([left, top, across, down]), 1, true).expect("less is seen, and no more broken");
    let row = |y: usize| &pixels[(y * width + left) * 3..(y * width + left + across) * 3];
    assert!(part.pixels == (top..top + down).flat_map(row).copied().collect::<Vec<u8>>(), "a part differs");
    let size = [1 + share(reduced, across), 1 + share(left_byte ^ top_byte, down)].map(|side| side as u32);
    let view = View::of_part([left, top, across, down].map(|at| at as u32), size, Filter::Bilinear);
    let encoded = Encoded { bytes: file.to_vec().into() };
    let decode = Decode { scale: DecodeScale::Exact, ..Decode::default() };
    // Other decoders look at the first bytes, too, and turn images.
    let whole = decode.seen(&encoded, &|_| None).ok();
    if let Some(whole) = whole.filter(|whole| (whole.width as usize, whole.height as usize) == (width, height)) {
        let shown = view.of(decode.seen(&encoded, &|_| Some(view)).expect("less is seen"));
        assert!(shown == view.of(whole), "rows that are resized as they come differ: {view:?}");
    }
    let reduced = 1 << (reduced % 4);
    let small = own_jpeg(file, None, reduced, true).expect("as at full size");
    let small_scalar = own_jpeg(file, None, reduced, false).expect("as at full size");
    assert!(small.pixels == small_scalar.pixels, "vectors and single numbers differ at 1/{reduced}");
});
