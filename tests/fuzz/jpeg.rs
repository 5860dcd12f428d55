//! Forebay's own JPEG decoder on any bytes: no panic, no overflow, nothing read or written outside of what it holds, the same
//! pixels with vectors as without, and of a part the pixels that the whole image has there.
#![no_main]

use forebay_stages::decode::fuzzing::{OwnJpeg, own_jpeg};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first bytes say which part, the rest is the file.
    let Some((&[left, top, across, down, reduced], file)) = data.split_first_chunk() else { return };
    let Some(OwnJpeg { width, height, pixels }) = own_jpeg(file, None, 1, true) else { return };
    let scalar = own_jpeg(file, None, 1, false).expect("as with vectors");
    assert!(scalar.pixels == pixels, "vectors and single numbers differ");
    let share = |of: u8, length: usize| usize::from(of) * length / 256;
    let (left, top) = (share(left, width), share(top, height));
    let (across, down) = (1 + share(across, width - left), 1 + share(down, height - top));
    let part = own_jpeg(file, Some([left, top, across, down]), 1, true).expect("less is seen, and no more broken");
    let row = |y: usize| &pixels[(y * width + left) * 3..(y * width + left + across) * 3];
    assert!(part.pixels == (top..top + down).flat_map(row).copied().collect::<Vec<u8>>(), "a part differs");
    let reduced = 1 << (reduced % 4);
    let small = own_jpeg(file, None, reduced, true).expect("as at full size");
    let small_scalar = own_jpeg(file, None, reduced, false).expect("as at full size");
    assert!(small.pixels == small_scalar.pixels, "vectors and single numbers differ at 1/{reduced}");
});
