//! Forebay's own decoder against libjpeg-turbo's pixels.

use forebay_datasets::sample::{Encoded, Pixels, SeenPart};
use forebay_datasets::seed::{Seed, Stream};
use image::metadata::Orientation;
use libjpeg_turbo_rs::{Encoder, PixelFormat, ScanScript};

use super::bits::ScanBytes;
use super::frame::{Headers, Next};
use super::rows::Region;
use super::{own, units};
use crate::decode::{Decode, DecodeScale};
use crate::resample::View;
use crate::resize::Filter;
use crate::resized_rows::ResizedRows;
use crate::simd::isa::Isa;
use crate::stage::Stage;

/// Waves, edges and noise in all channels.
fn picture(width: usize, height: usize, stream: &mut Stream) -> Vec<u8> {
    let noise = stream.range(0.0, 60.0);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let edge = if (x / 7 + y / 5) % 3 == 0 { 120.0 } else { 0.0 };
            for wave in [x as f64 / 3.0, y as f64 / 4.0, (x + y) as f64 / 9.0] {
                pixels.push((100.0 + 60.0 * wave.sin() + edge + stream.range(-noise, noise)) as u8);
            }
        }
    }
    pixels
}

/// A file of some sampling, quality and restart interval, baseline or progressive.
fn file(width: usize, height: usize, sampling: Option<[(u8, u8); 3]>, stream: &mut Stream) -> Vec<u8> {
    let pixels = picture(width, height, stream);
    let quality = [8, 30, 75, 90, 100][stream.below(5) as usize];
    let encoder = Encoder::new(&pixels, width, height, PixelFormat::Rgb).quality(quality);
    let encoder = match stream.below(4) {
        0 => encoder,
        1 => encoder.optimize_huffman(true),
        _ => encoder.progressive(true),
    };
    let encoder = match stream.below(3) {
        0 => encoder.restart_rows(1 + stream.below(2) as u16),
        1 => encoder.restart_blocks(1 + stream.below(9) as u16),
        _ => encoder,
    };
    match sampling {
        Some(sampling) => encoder.sampling_factors(sampling.to_vec()).encode(),
        None => encoder.grayscale_from_color(true).encode(),
    }
    .expect("the picture is encoded")
}

/// The pixels of libjpeg-turbo.
fn expected(bytes: &[u8]) -> Option<Vec<u8>> {
    libjpeg_turbo_rs::decompress_to(bytes, PixelFormat::Rgb).ok().map(|image| image.data)
}

/// The rows and columns of a region, from those of the whole image.
fn cut(pixels: &[u8], width: usize, region: &Region) -> Vec<u8> {
    let row =
        |y: usize| &pixels[(y * width + region.columns.start) * 3..(y * width + region.columns.end) * 3];
    region.rows.clone().flat_map(row).copied().collect()
}

/// True where a file says that it is progressive.
fn is_progressive(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|four| four == [0xff, 0xc2, 0, 17] || four == [0xff, 0xc2, 0, 11])
}

/// True of a baseline image whose blocks are read in the way for few bits.
fn is_sparse(bytes: &[u8]) -> bool {
    let (mut headers, mut scan_bytes) = (Headers::default(), ScanBytes::default());
    let Some(Next::Scan(scan)) = headers.next(bytes, 2) else { panic!("it has a scan") };
    let frame = headers.frame().expect("it has a frame");
    scan_bytes.read(&bytes[scan.at..], scan.intervals(frame)).expect("it has as many intervals");
    !frame.is_progressive && units::is_sparse(frame, &scan_bytes)
}

const SAMPLINGS: [Option<[(u8, u8); 3]>; 8] = [
    None,
    Some([(1, 1), (1, 1), (1, 1)]),
    Some([(2, 1), (1, 1), (1, 1)]),
    Some([(1, 2), (1, 1), (1, 1)]),
    Some([(2, 2), (1, 1), (1, 1)]),
    Some([(4, 1), (1, 1), (1, 1)]),
    Some([(4, 2), (1, 1), (1, 1)]),
    Some([(2, 2), (2, 1), (1, 1)]),
];

#[test]
fn every_pixel_is_that_of_libjpeg_turbo() {
    let mut stream = Seed(1).stream("files");
    let (mut n_progressive, mut n_sparse) = (0, 0);
    for sampling in SAMPLINGS {
        for size in 0..40 {
            let side = |stream: &mut Stream| 1 + stream.below(if size < 30 { 40 } else { 150 }) as usize;
            let (width, height) = (side(&mut stream), side(&mut stream));
            let bytes = file(width, height, sampling, &mut stream);
            n_progressive += usize::from(is_progressive(&bytes));
            n_sparse += usize::from(is_sparse(&bytes));
            let whole = expected(&bytes).expect("a good file");
            let start = |stream: &mut Stream, all: usize| stream.below(all as u64) as usize;
            let (x, y) = (start(&mut stream, width), start(&mut stream, height));
            let columns = x..x + 1 + start(&mut stream, width - x);
            let region = Region { columns, rows: y..y + 1 + start(&mut stream, height - y) };
            for isa in Isa::all() {
                let found = own::pixels(&bytes, false, None, 1, None, isa);
                let what = format!("{sampling:?} {width}x{height} {isa:?}");
                assert!(found.as_ref() == Some(&whole), "{what}");
                let found = own::pixels(&bytes, false, Some(region.clone()), 1, None, isa);
                assert!(found == Some(cut(&whole, width, &region)), "{what} {region:?}");
            }
        }
    }
    assert!((100..220).contains(&n_progressive), "half of 320: {n_progressive}");
    assert!(n_sparse > 25, "{n_sparse} of few bits");
}

#[test]
fn scans_bring_coefficients_and_bits_in_any_order_of_the_standard() {
    let scan = |components: &[u8], [ss, se, ah, al]: [u8; 4]| ScanScript {
        components: components.to_vec(),
        ss,
        se,
        ah,
        al,
    };
    let each = |band: [u8; 4]| [0, 1, 2].map(|component| scan(&[component], band));
    // Bands alone; bits alone; all at once, components in turn.
    let bands = [vec![scan(&[0, 1, 2], [0, 0, 0, 0])], each([1, 1, 0, 0]).into(), each([2, 63, 0, 0]).into()];
    let mut bits = vec![scan(&[0, 1, 2], [0, 0, 0, 5])];
    bits.extend(each([1, 63, 0, 5]));
    for low in (0..5).rev() {
        bits.push(scan(&[0, 1, 2], [0, 0, low + 1, low]));
        bits.extend(each([1, 63, low + 1, low]));
    }
    let mixed = [
        each([0, 0, 0, 2]).into(),
        each([1, 9, 0, 1]).into(),
        each([0, 0, 2, 1]).into(),
        each([10, 63, 0, 3]).into(),
        each([1, 9, 1, 0]).into(),
        vec![scan(&[0, 1], [0, 0, 1, 0]), scan(&[2], [0, 0, 1, 0])],
        each([10, 63, 3, 2]).into(),
        each([10, 63, 2, 1]).into(),
        each([10, 63, 1, 0]).into(),
    ];
    let mut stream = Seed(8).stream("scripts");
    for script in [bands.concat(), bits, mixed.concat()] {
        for sampling in SAMPLINGS.into_iter().flatten() {
            for n_restart in [0, 1, 7] {
                let (width, height) = (1 + stream.below(90) as usize, 1 + stream.below(90) as usize);
                let pixels = picture(width, height, &mut stream);
                let encoder = Encoder::new(&pixels, width, height, PixelFormat::Rgb).quality(95);
                let encoder = encoder.sampling_factors(sampling.to_vec()).restart_blocks(n_restart);
                let bytes =
                    encoder.progressive(true).scan_script(script.clone()).encode().expect("a picture");
                for isa in Isa::all() {
                    let found = own::pixels(&bytes, false, None, 1, None, isa);
                    assert!(
                        found.is_some() && found == expected(&bytes),
                        "{sampling:?} {width}x{height} {n_restart} {isa:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_scan_that_is_missing_or_comes_twice_is_refused() {
    let mut stream = Seed(9).stream("missing");
    let pixels = picture(40, 30, &mut stream);
    let bytes =
        Encoder::new(&pixels, 40, 30, PixelFormat::Rgb).progressive(true).encode().expect("a picture");
    let starts: Vec<usize> =
        (0..bytes.len() - 1).filter(|at| bytes[*at..].starts_with(&[0xff, 0xda])).collect();
    assert!(starts.len() >= 8, "{starts:?}");
    let is_good = |bytes: &[u8]| own::pixels(bytes, false, None, 1, None, Isa::Scalar).is_some();
    assert!(is_good(&bytes));
    let ends = starts[1..].iter().copied().chain([bytes.len() - 2]);
    for (start, end) in starts.iter().zip(ends) {
        assert!(!is_good(&[&bytes[..*start], &bytes[end..]].concat()), "without {start}");
        assert!(!is_good(&[&bytes[..end], &bytes[*start..]].concat()), "{start} twice");
        assert!(!is_good(&bytes[..*start]), "cut before {start}");
    }
    assert!(is_good(&bytes[..bytes.len() - 2]), "only the end marker is missing");
    assert!(!is_good(&bytes[..bytes.len() - 3]));
}

/// Grey pictures of these sizes, as files with codes and restart intervals of their own.
fn grey(sizes: [(usize, usize); 3], qualities: [u8; 3], stream: &mut Stream) -> [Vec<u8>; 3] {
    std::array::from_fn(|at| {
        let (width, height) = sizes[at];
        let plane: Vec<u8> = picture(width, height, stream).chunks(3).map(|pixel| pixel[0]).collect();
        let encoder = Encoder::new(&plane, width, height, PixelFormat::Grayscale);
        let encoder = encoder.quality(qualities[at]).optimize_huffman(true);
        encoder.restart_blocks([0, 3, 2][at]).encode().expect("a picture")
    })
}

/// A baseline file whose components have a scan each, those of grey files, with the tables of each under the same numbers.
fn apart(files: &[Vec<u8>; 3], sizes: [(usize, usize); 3], sampling: [(u8, u8); 3]) -> Vec<u8> {
    let marker =
        |bytes: &[u8], code: u8| bytes.windows(2).position(|two| two == [0xff, code]).expect("it has one");
    let (width, height) = sizes[0];
    let mut bytes = files[0][..marker(&files[0], 0xdb)].to_vec();
    bytes.extend([0xff, 0xc0, 0, 17, 8]);
    bytes.extend((height as u16).to_be_bytes());
    bytes.extend((width as u16).to_be_bytes());
    bytes.push(3);
    for (id, (h, v)) in (1..).zip(sampling) {
        bytes.extend([id, h << 4 | v, 0]);
    }
    for (id, file) in (1..).zip(files) {
        let [quantisers, frame, scan] = [0xdb, 0xc0, 0xda].map(|code| marker(file, code));
        // All of its tables, then its scan with another number.
        bytes.extend(&file[quantisers..frame]);
        bytes.extend(&file[frame + 2 + 11..scan]);
        bytes.extend([0xff, 0xda, 0, 8, 1, id]);
        bytes.extend(&file[scan + 6..file.len() - 2]);
    }
    bytes.extend([0xff, 0xd9]);
    bytes
}

#[test]
fn quantisers_are_those_of_when_a_component_begins() {
    let mut stream = Seed(11).stream("latched");
    for _ in 0..20 {
        let sizes = [(1 + stream.below(50) as usize, 1 + stream.below(50) as usize); 3];
        let files = grey(sizes, [90, 60, 75], &mut stream);
        let levels = files.each_ref().map(|file| expected(file).expect("a good file"));
        let pixels: Vec<u8> =
            (0..levels[0].len() / 3).flat_map(|at| [0, 1, 2].map(|of| levels[of][3 * at])).collect();
        let found = own::pixels(&apart(&files, sizes, [(1, 1); 3]), true, None, 1, None, Isa::detect());
        assert!(found == Some(pixels), "{sizes:?}");
    }
}

#[test]
fn components_may_have_a_scan_each() {
    let mut stream = Seed(10).stream("apart");
    for sampling in
        [[(1, 1); 3], [(2, 2), (1, 1), (1, 1)], [(2, 1), (1, 1), (1, 1)], [(2, 1), (1, 1), (2, 1)]]
    {
        for _ in 0..12 {
            let (width, height) = (1 + stream.below(70) as usize, 1 + stream.below(70) as usize);
            let (h_max, v_max) = (usize::from(sampling[0].0), usize::from(sampling[0].1));
            let sizes = sampling.map(|(h, v)| {
                ((width * usize::from(h)).div_ceil(h_max), (height * usize::from(v)).div_ceil(v_max))
            });
            // libjpeg-turbo-rs takes the quantisers that come last for all components.
            let bytes = apart(&grey(sizes, [90; 3], &mut stream), sizes, sampling);
            let whole = expected(&bytes).expect("a good file");
            let region = Region { columns: width / 3..width, rows: height / 2..height };
            for isa in Isa::all() {
                let found = own::pixels(&bytes, false, None, 1, None, isa);
                assert!(found.as_ref() == Some(&whole), "{sampling:?} {width}x{height} {isa:?}");
                let found = own::pixels(&bytes, false, Some(region.clone()), 1, None, isa);
                assert!(found == Some(cut(&whole, width, &region)), "{sampling:?} {width}x{height} {isa:?}");
            }
            // A table that is lost is not replaced by the one before.
            for (at, _) in bytes.windows(2).enumerate().filter(|(_, two)| matches!(two, [0xff, 0xc4 | 0xdb]))
            {
                let mut broken = bytes.clone();
                broken[at + 1] ^= 0x40;
                assert!(own::pixels(&broken, false, None, 1, None, Isa::Scalar).is_none(), "at {at}");
            }
        }
    }
}

#[test]
fn a_part_of_a_reduced_image_is_that_part_of_all_of_it() {
    let mut stream = Seed(4).stream("reduced");
    for sampling in SAMPLINGS {
        for _ in 0..12 {
            let (width, height) = (16 + stream.below(90) as usize, 16 + stream.below(90) as usize);
            let bytes = file(width, height, sampling, &mut stream);
            for reduced in [2, 4, 8] {
                let decode = |region, isa| {
                    own::pixels(&bytes, false, region, reduced, None, isa).expect("a good file")
                };
                let all = decode(None, Isa::Scalar);
                let (across, down) = (width.div_ceil(reduced), height.div_ceil(reduced));
                assert_eq!(all.len(), across * down * 3);
                let (x, y) = (stream.below(across as u64) as usize, stream.below(down as u64) as usize);
                let rows = y..(y + 5).min(down);
                let region = Region { columns: x..across, rows: rows.clone() };
                let of_image = Region {
                    columns: x * reduced..width,
                    rows: rows.start * reduced..(rows.end * reduced).min(height),
                };
                for isa in Isa::all() {
                    assert!(decode(None, isa) == all, "{isa:?}");
                    assert!(decode(Some(of_image.clone()), isa) == cut(&all, across, &region), "{isa:?}");
                }
            }
        }
    }
}

#[test]
fn a_reduced_image_shows_what_the_whole_one_does() {
    let mut stream = Seed(6).stream("views");
    for sampling in SAMPLINGS {
        // Small ones, and others.
        for (reduced, least, halves) in [(2, 10, 16), (4, 10, 16), (8, 10, 16), (2, 64, 9), (4, 64, 9)] {
            let size = [least + stream.below(10) as u32, least + stream.below(10) as u32];
            let [width, height] = size.map(|side| halves * reduced * side / 2 + stream.below(8) as u32);
            let pixels = picture(width as usize, height as usize, &mut stream);
            let encoder =
                Encoder::new(&pixels, width as usize, height as usize, PixelFormat::Rgb).quality(90);
            let bytes = match sampling {
                Some(sampling) => encoder.sampling_factors(sampling.to_vec()).encode(),
                None => encoder.grayscale_from_color(true).encode(),
            };
            let encoded = Encoded { bytes: bytes.expect("the picture is encoded").into() };
            let view = View::of_part([0, 0, width, height], size, Filter::Bilinear);
            let shown = |scale| {
                let decode = Decode { scale, ..Decode::default() };
                let decoded = decode.seen(&encoded, &|_| Some(view)).expect("it is good");
                let reduced = decoded.part.as_ref().map_or(1, |part| part.reduced);
                (reduced, view.of(decoded).data)
            };
            let (exact, scaled) = (shown(DecodeScale::Exact), shown(DecodeScale::Scaled));
            assert_eq!((exact.0, scaled.0), (1, reduced), "{sampling:?}");
            let differences = exact.1.iter().zip(&scaled.1).map(|(a, b)| a.abs_diff(*b));
            let most = differences.clone().max().expect("there are pixels");
            let mean = differences.map(f64::from).sum::<f64>() / exact.1.len() as f64;
            assert!(mean <= 1.0 && most <= 6, "{sampling:?} / {reduced}, {least}: {mean} {most}");
        }
    }
}

#[test]
fn the_ends_of_a_reduced_image_count_as_much_as_what_they_stand_for() {
    for (beyond, is_below) in (0..8).flat_map(|beyond| [(beyond, false), (beyond, true)]) {
        let side = 1024 + beyond;
        let level = |at: usize| if at < 1024 { 60 } else { 220 };
        let row = |y: usize| (0..side).flat_map(move |x| [level(if is_below { y } else { x }); 3]);
        let pixels: Vec<u8> = (0..side).flat_map(row).collect();
        let encoder = Encoder::new(&pixels, side, side, PixelFormat::Rgb).quality(100);
        let bytes = encoder.encode().expect("the picture is encoded").into();
        let encoded = Encoded { bytes };
        let side = side as u32;
        // All of it, and a part whose first and last squares see what is outside.
        for inside in [[0, 0, side, side], [3, 5, 1021, side - 10], [764, 1, 257, 999], [1, 764, 999, 257]] {
            for reduced in [2, 4, 8] {
                let size = [2, 3].map(|axis| inside[axis] / (9 * reduced));
                let view = View::of_part(inside, size, Filter::Bilinear);
                let shown = |scale| {
                    let decode = Decode { scale, ..Decode::default() };
                    let seen = decode.seen(&encoded, &|_| Some(view)).expect("it is good");
                    if scale == DecodeScale::Scaled {
                        assert_eq!(seen.part.map(|part| part.reduced), Some(reduced));
                    }
                    view.of(seen).data
                };
                let (exact, scaled) = (shown(DecodeScale::Exact), shown(DecodeScale::Scaled));
                let most = exact.iter().zip(&scaled).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(most <= Some(3), "{side} {inside:?} / {reduced}: {most:?}");
            }
        }
    }
}

#[test]
fn rows_that_are_resized_as_they_come_are_those_of_the_whole_part() {
    let mut stream = Seed(14).stream("rows");
    let (mut tried, mut taken) = (0, 0);
    for _ in 0..if cfg!(debug_assertions) { 40 } else { 400 } {
        let size = [16 + stream.below(300) as u32, 16 + stream.below(300) as u32];
        let [width, height] = size.map(|side| side as usize);
        let sampling = SAMPLINGS[stream.below(SAMPLINGS.len() as u64) as usize];
        let bytes = file(width, height, sampling, &mut stream);
        for reduced in [1, 2, 4, 8] {
            // What is seen of a part of it, in squares that lie in part outside of what is.
            let mut part = |axis: usize| {
                let from = stream.below(u64::from(size[axis] / 3 + 1)) as u32;
                (from, size[axis] - from - stream.below(u64::from((size[axis] - from) / 2)) as u32)
            };
            let ((left, across), (top, down)) = (part(0), part(1));
            let mut smaller = |length: u32| 1 + stream.below(u64::from(length.div_ceil(reduced))) as u32;
            let inside = [left, top, across, down];
            let mut view = View::of_part(inside, [smaller(across), smaller(down)], Filter::Bilinear);
            // Half of them see only what lies between its columns and rows.
            if stream.below(2) == 0 {
                for axis in 0..2 {
                    let length = f64::from(inside[2 + axis]);
                    view.window[axis] += length * stream.range(0.0, 0.2);
                    view.window[2 + axis] = length * stream.range(0.5, 0.8);
                }
            }
            let whole = super::whole_squares(view.seen(), reduced, (size[0], size[1]));
            let [x, y, columns, rows] = whole.map(|at| at as usize);
            let region = Region { columns: x..x + columns, rows: y..y + rows };
            let here = [whole[2].div_ceil(reduced), whole[3].div_ceil(reduced)];
            let part = SeenPart { left: whole[0], top: whole[1], reduced, rows_are_resized: false };
            let shown = |data: Vec<u8>, rows: u32, part: SeenPart| {
                let original = (size[0], size[1]).into();
                view.of(Pixels { original, part: Some(part), ..Pixels::new(here[0], rows, data) })
            };
            let decode = |resized, isa| {
                let region = Some(region.clone());
                own::pixels(&bytes, false, region, reduced as usize, resized, isa).expect("a good file")
            };
            let expected = shown(decode(None, Isa::Scalar), here[1], part);
            for isa in Isa::all() {
                tried += 1;
                let Some(resized) = ResizedRows::begin(&view, part, here, isa) else { continue };
                taken += 1;
                let part = SeenPart { rows_are_resized: true, ..part };
                let found = shown(decode(Some(resized), isa), view.size[1], part);
                assert!(found == expected, "{size:?} / {reduced}: {view:?} {isa:?}");
            }
        }
    }
    assert!(taken * 2 > tried, "{taken} of {tried}");
}

#[test]
fn broken_bytes_give_what_libjpeg_turbo_makes_of_them_or_nothing() {
    let mut stream = Seed(2).stream("mutations");
    let mut originals: Vec<Vec<u8>> =
        SAMPLINGS.iter().map(|sampling| file(45, 37, *sampling, &mut stream)).collect();
    while originals.iter().filter(|bytes| is_sparse(bytes)).count() < 4 {
        originals.extend(Some(file(45, 37, None, &mut stream)).filter(|bytes| is_sparse(bytes)));
        originals.extend(Some(file(45, 37, SAMPLINGS[4], &mut stream)).filter(|bytes| is_sparse(bytes)));
    }
    let (mut same, mut others, mut alone, mut refused) = (0, 0, 0, 0);
    for _ in 0..if cfg!(debug_assertions) { 20_000 } else { 300_000 } {
        let mut bytes = originals[stream.below(originals.len() as u64) as usize].clone();
        for _ in 0..=stream.below(3) {
            // The quantisers stay: coefficients of other ones may overflow, in each decoder in another way.
            let frame = bytes.windows(2).position(|two| matches!(two, [0xff, 0xc0 | 0xc2])).unwrap_or(2);
            let at = frame + stream.below((bytes.len() - frame) as u64) as usize;
            match stream.below(4) {
                0 => bytes[at] = stream.below(256) as u8,
                1 => bytes[at] ^= 1 << stream.below(8),
                2 => drop(bytes.drain(at..(at + 1 + stream.below(4) as usize).min(bytes.len()))),
                _ => bytes.truncate(at + 1),
            }
        }
        // A broken header may say anything of the size; images of some pixels are enough.
        let Ok(header) = super::JpegHeader::read(&bytes) else { continue };
        if header.width * header.height > 1 << 14 {
            continue;
        }
        let found = own::pixels(&bytes, header.is_rgb, None, 1, None, Isa::detect());
        // Rows that are resized as they come are refused with the image.
        let here = [header.width, header.height];
        let part = SeenPart { left: 0, top: 0, reduced: 1, rows_are_resized: false };
        let view =
            View::of_part([0, 0, here[0], here[1]], here.map(|side| side.div_ceil(2)), Filter::Bilinear);
        if let Some(rows) = ResizedRows::begin(&view, part, here, Isa::detect()) {
            let resized = own::pixels(&bytes, header.is_rgb, None, 1, Some(rows), Isa::detect());
            assert_eq!(resized.is_some(), found.is_some());
        }
        let region = Region { columns: 0..1, rows: 0..header.height as usize / 2 + 1 };
        own::pixels(&bytes, header.is_rgb, Some(region), 1, None, Isa::detect());
        let Some(found) = found else {
            refused += 1;
            continue;
        };
        assert!(Some(&found) == own::pixels(&bytes, header.is_rgb, None, 1, None, Isa::Scalar).as_ref());
        match expected(&bytes) {
            Some(pixels) if pixels != found => others += 1,
            Some(_) => same += 1,
            None => alone += 1,
        }
    }
    // Coefficients that are large together overflow within the transform, in each of them in another way.
    let figures = format!("{same} {others} {alone} {refused}");
    assert!(same > 300 && refused > 1000 && others * 500 < same, "{figures}");
    // Of what is wrong in a table and not used, and in what is skipped.
    assert!(alone * 20 < same, "{figures}");
}

#[test]
fn what_is_seen_of_a_turned_image_is_what_the_whole_image_shows_there() {
    let mut stream = Seed(3).stream("turned");
    for exif in 1..=8 {
        let orientation = Orientation::from_exif(exif).expect("there are eight");
        let tiff = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[exif], &[0; 7]].concat();
        let pixels = picture(97, 60, &mut stream);
        let encoder = Encoder::new(&pixels, 97, 60, PixelFormat::Rgb);
        let bytes = encoder.exif_data(&tiff).encode().expect("the picture is encoded");
        let encoded = Encoded { bytes: bytes.into() };
        let whole = Decode::default().apply(encoded.clone(), &Seed(0).draws("a", 0, 0)).expect("it is good");
        assert_eq!(whole.width == 60, super::swaps_sides(orientation), "{orientation:?}");
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos3] {
            for inside in [[0, 0, 30, 20], [31, 25, 28, 33], [17, 3, 40, 50]] {
                for size in [[16, 16], [40, 9], [inside[2], inside[3]]] {
                    let view = View::of_part(inside, size, filter);
                    let part = Decode::default().seen(&encoded, &|_| Some(view)).expect("it is good");
                    assert!(part.width * part.height < whole.width * whole.height, "a part");
                    assert_eq!(part.whole(), (whole.width, whole.height));
                    assert_eq!(view.of(part), view.of(whole.clone()), "{orientation:?} {view:?}");
                }
            }
        }
    }
}

#[test]
fn a_large_image_is_decoded_where_the_one_before_it_was() {
    let (width, height) = (1500, 1100);
    let pixels = picture(width, height, &mut Seed(12).stream("large"));
    for is_progressive in [false, true] {
        let encoder = Encoder::new(&pixels, width, height, PixelFormat::Rgb).progressive(is_progressive);
        let encoded = Encoded { bytes: encoder.encode().expect("the picture is encoded").into() };
        let view = View::of_part([0, 0, width as u32, height as u32], [700, 500], Filter::Bicubic);
        let decode = || Decode::default().seen(&encoded, &|_| Some(view)).expect("it is good");
        let first = decode();
        let place = first.data.as_ptr();
        let shown = view.of(first);
        let again = decode();
        assert!(again.data.as_ptr() == place, "progressive: {is_progressive}");
        assert!(view.of(again) == shown);
    }
}
