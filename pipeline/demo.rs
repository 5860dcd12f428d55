//! Draws a labelled image dataset: eight shapes and patterns on coloured grounds, as JPEG and PNG files of many
//! sizes, with one rare class and a few broken files, as real folders have them.
//!
//! Colours say nothing about the class, so that a model has to look at the form. Every file is a pure function
//! of the seed and its own name: a larger dataset contains the smaller one.

use std::fs;
use std::io;
use std::path::Path;

use forebay_datasets::seed::{Seed, Stream};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

/// The classes with their whole images at scale 1, which are 600 files with the broken ones; the last class is seven
/// times rarer than the first.
const CLASSES: [(&str, Form, u32); 8] = [
    ("circle", Form::Circle, 99),
    ("square", Form::Square, 89),
    ("triangle", Form::Triangle, 89),
    ("ring", Form::Ring, 79),
    ("cross", Form::Cross, 78),
    ("stripes", Form::Stripes, 78),
    ("checkerboard", Form::Checkerboard, 70),
    ("star", Form::Star, 14),
];

/// How much is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DemoOptions {
    /// Times the images of every class, each rounded and at least 1; 1 draws 600 files, four of them broken.
    pub scale: f64,
    /// The least and the most pixels of an image's longer side, the least at least 16.
    pub side: (u32, u32),
}

impl Default for DemoOptions {
    fn default() -> DemoOptions {
        DemoOptions { scale: 1.0, side: (48, 400) }
    }
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoSummary {
    /// Each class and its whole images, sorted by name.
    pub classes: Vec<(String, u32)>,
    /// All files, the broken ones among them.
    pub files: u32,
    /// The files that are broken.
    pub broken: u32,
    /// The bytes of all files.
    pub bytes: u64,
}

/// Draws the dataset as `root/CLASS/CLASS-NUMBER.jpg` (or `.png`), making the folders and replacing files of
/// the same name; others are left alone.
///
/// # Errors
/// When a folder or file cannot be written.
///
/// # Panics
/// When the options ask for sides below 16 pixels, or for more at least than at most.
pub fn draw(root: &Path, seed: Seed, options: DemoOptions) -> Result<DemoSummary, io::Error> {
    let (least, most) = options.side;
    assert!((16..=most).contains(&least), "sides from {least} to {most}");
    let mut summary = DemoSummary { classes: vec![], files: 0, broken: 0, bytes: 0 };
    let write = |summary: &mut DemoSummary, name: &str, bytes: &[u8]| {
        summary.bytes += bytes.len() as u64;
        fs::write(root.join(name), bytes)
    };
    for (class, form, number) in CLASSES {
        let number = (f64::from(number) * options.scale).round().max(1.0) as u32;
        fs::create_dir_all(root.join(class))?;
        for index in 0..number {
            let stem = format!("{class}/{class}-{index:04}");
            let mut stream = seed.draws(&stem, 0, 0).of("demo");
            // A third are PNGs, which are larger, and a tenth of all are gray, as in most photo collections.
            let extension = if stream.chance(1.0 / 3.0) { "png" } else { "jpg" };
            let picture = Picture::draw(&mut stream, form, options.side);
            let bytes = match extension {
                "png" => picture.png()?,
                _ => picture.jpeg(stream.range(80.0, 95.0) as u8)?,
            };
            write(&mut summary, &format!("{stem}.{extension}"), &bytes)?;
        }
        summary.classes.push((class.to_string(), number));
        summary.files += number;
    }
    let mut stream = seed.draws("broken", 0, 0).of("demo");
    let jpeg = Picture::draw(&mut stream, Form::Circle, options.side).jpeg(90)?;
    let png = Picture::draw(&mut stream, Form::Ring, options.side).png()?;
    for (name, bytes) in [
        ("circle/cut-short.jpg", &jpeg[..jpeg.len() / 2]),
        ("ring/cut-short.png", &png[..png.len() / 2]),
        ("square/only-text.jpg", b"this is a text file that somebody called .jpg\n".as_slice()),
        ("triangle/empty.jpg", b"".as_slice()),
    ] {
        write(&mut summary, name, bytes)?;
        summary.files += 1;
        summary.broken += 1;
    }
    summary.classes.sort();
    Ok(summary)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Circle,
    Square,
    Triangle,
    Ring,
    Cross,
    Stripes,
    Checkerboard,
    Star,
}

/// Red, green and blue, each 0 to 1.
type Colour = [f64; 3];

struct Picture {
    width: u32,
    height: u32,
    is_gray: bool,
    /// `[height, width, 3]`, or `[height, width]` when gray.
    data: Vec<u8>,
}

impl Picture {
    fn draw(stream: &mut Stream, form: Form, (least, most): (u32, u32)) -> Picture {
        // Log-uniform: as many images between 50 and 100 pixels as between 200 and 400.
        let longer = stream.range(f64::from(least).ln(), f64::from(most).ln() + 1e-9).exp().round();
        let shorter = (longer * stream.range(0.6, 1.0)).round();
        let (width, height) = if stream.chance(0.5) { (longer, shorter) } else { (shorter, longer) };
        let ground = Ground::draw(stream);
        let figure = Figure::draw(stream, form, &ground, width, height);
        let is_gray = stream.chance(0.1);
        let grain = stream.range(0.01, 0.05);

        let mut data = Vec::with_capacity((width * height) as usize * 3);
        for row in 0..height as u32 {
            for column in 0..width as u32 {
                let (x, y) = (f64::from(column) + 0.5, f64::from(row) + 0.5);
                let mut colour = ground.at(x / width, y / height);
                figure.over(&mut colour, x, y);
                // Three times 16 random bits, on a triangle of width 2 around 0: nearly normal, and cheap.
                let bits = stream.bits();
                let noise = |shift: u32| f64::from((bits >> shift) as u16) / 32_768.0 - 1.0;
                let common = noise(0) + noise(16);
                if is_gray {
                    data.push(to_byte(luma(colour) + grain * common));
                } else {
                    data.extend((0..3).map(|channel| {
                        let own =
                            noise(32) * [1.0, -0.5, -0.5][channel] + noise(48) * [0.0, 1.0, -1.0][channel];
                        to_byte(colour[channel] + grain * (common + 0.5 * own))
                    }));
                }
            }
        }
        Picture { width: width as u32, height: height as u32, is_gray, data }
    }

    fn png(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        let colour = if self.is_gray { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        let encoder = PngEncoder::new(&mut bytes);
        encoder.write_image(&self.data, self.width, self.height, colour).map_err(io::Error::other)?;
        Ok(bytes)
    }

    fn jpeg(&self, quality: u8) -> io::Result<Vec<u8>> {
        let format = if self.is_gray { PixelFormat::Grayscale } else { PixelFormat::Rgb };
        // Files of high quality keep their chroma in full, as cameras and editors do it.
        let sampling = if quality < 90 { Subsampling::S420 } else { Subsampling::S444 };
        let encoder = Encoder::new(&self.data, self.width as usize, self.height as usize, format);
        encoder.quality(quality).subsampling(sampling).encode().map_err(io::Error::other)
    }
}

/// What is behind the figure: a gradient of two colours under soft clouds.
struct Ground {
    from: Colour,
    to: Colour,
    direction: (f64, f64),
    /// `[5][5]`: brightness at the points of a grid over the image, between which it changes smoothly.
    clouds: [[f64; 5]; 5],
}

impl Ground {
    fn draw(stream: &mut Stream) -> Ground {
        let hue = stream.unit();
        let from = hsv(hue, stream.range(0.1, 0.7), stream.range(0.2, 0.95));
        let to = hsv(hue + stream.range(-0.2, 0.2), stream.range(0.1, 0.7), stream.range(0.2, 0.95));
        let (sin, cos) = stream.range(0.0, std::f64::consts::TAU).sin_cos();
        let strength = stream.range(0.02, 0.12);
        let clouds = std::array::from_fn(|_| std::array::from_fn(|_| stream.range(-strength, strength)));
        // The second colour goes half of the way at most, so that one figure can stand out from both.
        Ground { from, to: mix(from, to, 0.6), direction: (cos, sin), clouds }
    }

    /// The colour at `x` and `y` in `[0, 1)`.
    fn at(&self, x: f64, y: f64) -> Colour {
        let along = 0.5 + (x - 0.5) * self.direction.0 + (y - 0.5) * self.direction.1;
        let (column, row) = (((x * 4.0) as usize).min(3), ((y * 4.0) as usize).min(3));
        let (right, down) = (smooth(x * 4.0 - column as f64), smooth(y * 4.0 - row as f64));
        let across = |row: usize| {
            self.clouds[row][column] + (self.clouds[row][column + 1] - self.clouds[row][column]) * right
        };
        let cloud = across(row) + (across(row + 1) - across(row)) * down;
        mix(self.from, self.to, along.clamp(0.0, 1.0)).map(|channel| channel + cloud)
    }
}

/// The form that gives an image its class, with its place, size, turn and colours.
struct Figure {
    form: Form,
    centre: (f64, f64),
    /// Pixels from the centre to the outermost point of the form.
    radius: f64,
    turn: (f64, f64),
    /// How much narrower than wide.
    squash: f64,
    colour: Colour,
    /// The other colour of stripes and fields.
    second: Colour,
    light: (f64, f64),
    /// Offset in pixels and strength of the shadow.
    shadow: (f64, f64),
    /// Whether a pattern fills a disc instead of a square.
    is_round: bool,
    /// The width of a stripe and its neighbour, in pixels, and where they begin.
    period: f64,
    phase: (f64, f64),
    corners: Vec<(f64, f64)>,
}

impl Figure {
    fn draw(stream: &mut Stream, form: Form, ground: &Ground, width: f64, height: f64) -> Figure {
        let side = width.min(height);
        let radius = side * stream.range(0.3, 0.47);
        // Whole within the centre square, which is what a centre crop keeps.
        let mut place = |length: f64| length / 2.0 + (side / 2.0 - radius) * stream.range(-1.0, 1.0);
        let centre = (place(width), place(height));
        // Up to a twelfth of a turn from upright: enough to need learning, and little enough for a few hundred
        // images to teach it.
        let (sin, cos) = (stream.range(-1.0, 1.0) * std::f64::consts::TAU / 12.0).sin_cos();
        let squash = stream.range(0.85, 1.0);
        let middle = mix(ground.from, ground.to, 0.5);
        let colour = standing_out(stream, &[ground.from, ground.to, middle]);
        let second = standing_out(stream, &[colour]);
        let (light_sin, light_cos) = stream.range(0.0, std::f64::consts::TAU).sin_cos();
        let shade = stream.range(0.0, 0.25);
        Figure {
            form,
            centre,
            radius,
            turn: (cos, sin),
            squash,
            colour,
            second,
            light: (light_cos * shade, light_sin * shade),
            shadow: (radius * stream.range(0.05, 0.15), stream.range(0.0, 0.4)),
            is_round: stream.chance(0.5),
            period: radius * stream.range(0.5, 0.75),
            phase: (stream.unit(), stream.unit()),
            corners: match form {
                Form::Triangle => (0..3).map(|corner| on_circle(corner as f64 / 3.0 - 0.25, 1.0)).collect(),
                Form::Star => (0..10)
                    .map(|corner| {
                        on_circle(corner as f64 / 10.0 - 0.25, if corner % 2 == 0 { 1.0 } else { 0.42 })
                    })
                    .collect(),
                _ => vec![],
            },
        }
    }

    /// Draws over one pixel whose centre is (`x`, `y`), with its edges smoothed over one pixel.
    fn over(&self, colour: &mut Colour, x: f64, y: f64) {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let reach = self.radius * 1.4;
        if dx.abs() > reach || dy.abs() > reach {
            return;
        }
        let (offset, strength) = self.shadow;
        let softness = offset * 1.5 + 1.0;
        let (sx, sy) = self.own(dx - offset, dy - offset);
        let dark = strength * smooth((0.5 - self.distance(sx, sy) / softness).clamp(0.0, 1.0));
        *colour = colour.map(|channel| channel * (1.0 - dark));

        let (u, v) = self.own(dx, dy);
        let cover = (0.5 - self.distance(u, v)).clamp(0.0, 1.0);
        if cover > 0.0 {
            let bright = 1.0 + (dx * self.light.0 + dy * self.light.1) / self.radius;
            let own = mix(self.second, self.colour, self.pattern(u, v)).map(|channel| channel * bright);
            *colour = mix(*colour, own, cover);
        }
    }

    /// An offset from the centre in the form's own turned and squashed coordinates, in pixels.
    fn own(&self, dx: f64, dy: f64) -> (f64, f64) {
        let (cos, sin) = self.turn;
        (dx * cos + dy * sin, (dy * cos - dx * sin) / self.squash)
    }

    /// The distance in pixels to the edge of the form, below 0 inside.
    fn distance(&self, u: f64, v: f64) -> f64 {
        let r = self.radius;
        let disc = |radius: f64| u.hypot(v) - radius;
        let slab = |half_width: f64, half_height: f64| {
            let (a, b) = (u.abs() - half_width, v.abs() - half_height);
            a.max(0.0).hypot(b.max(0.0)) + a.max(b).min(0.0)
        };
        match self.form {
            Form::Circle => disc(0.9 * r),
            Form::Square => slab(0.71 * r, 0.71 * r),
            Form::Ring => disc(0.72 * r).abs() - 0.2 * r,
            Form::Cross => slab(0.95 * r, 0.27 * r).min(slab(0.27 * r, 0.95 * r)),
            Form::Stripes | Form::Checkerboard if self.is_round => disc(0.95 * r),
            Form::Stripes | Form::Checkerboard => slab(0.75 * r, 0.75 * r),
            Form::Triangle | Form::Star => r * to_polygon(&self.corners, u / r, v / r),
        }
    }

    /// The share of the first colour in `[0, 1]`, the rest being the second.
    fn pattern(&self, u: f64, v: f64) -> f64 {
        let stripe = |along: f64, phase: f64| {
            let turns = along / self.period + phase;
            let edge = (turns - turns.floor() - 0.5).abs() - 0.25;
            (0.5 + edge * self.period).clamp(0.0, 1.0)
        };
        match self.form {
            Form::Stripes => stripe(u, self.phase.0),
            Form::Checkerboard => {
                let (a, b) = (stripe(u, self.phase.0), stripe(v, self.phase.1));
                a * b + (1.0 - a) * (1.0 - b)
            }
            _ => 1.0,
        }
    }
}

fn on_circle(turns: f64, radius: f64) -> (f64, f64) {
    let (sin, cos) = (turns * std::f64::consts::TAU).sin_cos();
    (cos * radius, sin * radius)
}

/// The distance of a point to the edge of a polygon, below 0 inside (by the crossings of a ray to the right).
fn to_polygon(corners: &[(f64, f64)], x: f64, y: f64) -> f64 {
    let mut nearest = f64::INFINITY;
    let mut is_inside = false;
    for (index, (ax, ay)) in corners.iter().enumerate() {
        let (bx, by) = corners[(index + 1) % corners.len()];
        let (ex, ey) = (bx - ax, by - ay);
        let along = ((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey);
        let along = along.clamp(0.0, 1.0);
        nearest = nearest.min((x - ax - ex * along).hypot(y - ay - ey * along));
        if (*ay > y) != (by > y) && x < ax + ex * (y - ay) / ey {
            is_inside = !is_inside;
        }
    }
    if is_inside { -nearest } else { nearest }
}

/// A colour that differs clearly from each of `others`: the best of a dozen draws.
fn standing_out(stream: &mut Stream, others: &[Colour]) -> Colour {
    let contrast = |colour: Colour| {
        let from = |other: &Colour| {
            let hue: f64 = colour.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>() / 3.0;
            (luma(colour) - luma(*other)).abs() + 0.5 * hue
        };
        others.iter().map(from).fold(f64::INFINITY, f64::min)
    };
    let mut best = hsv(stream.unit(), stream.range(0.3, 1.0), stream.range(0.1, 1.0));
    for _ in 0..12 {
        if contrast(best) > 0.45 {
            break;
        }
        let next = hsv(stream.unit(), stream.range(0.3, 1.0), stream.range(0.1, 1.0));
        if contrast(next) > contrast(best) {
            best = next;
        }
    }
    best
}

/// Hue in turns, saturation and value in `[0, 1]`, to red, green and blue.
fn hsv(hue: f64, saturation: f64, value: f64) -> Colour {
    [5.0, 3.0, 1.0].map(|shift| {
        let sector = (shift + hue.rem_euclid(1.0) * 6.0) % 6.0;
        value - value * saturation * sector.min(4.0 - sector).clamp(0.0, 1.0)
    })
}

/// Brightness as ITU-R BT.601 weighs it.
fn luma([red, green, blue]: Colour) -> f64 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

fn mix(from: Colour, to: Colour, share: f64) -> Colour {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

fn smooth(x: f64) -> f64 {
    x * x * (3.0 - 2.0 * x)
}

fn to_byte(value: f64) -> u8 {
    // Rust's casts saturate, so that values outside 0 to 1 become black or white.
    (value * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> DemoOptions {
        DemoOptions { scale: 0.05, side: (16, 40) }
    }

    fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![];
        for class in fs::read_dir(root).expect("the dataset") {
            for file in fs::read_dir(class.expect("a class").path()).expect("a class") {
                let path = file.expect("a file").path();
                let name = path.strip_prefix(root).expect("below").display().to_string();
                files.push((name, fs::read(&path).expect("a file")));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn the_same_seed_draws_the_same_bytes_and_another_seed_others() {
        let drawn = |seed| {
            let folder = tempfile::tempdir().expect("a folder");
            draw(folder.path(), Seed(seed), small()).expect("draws");
            files(folder.path())
        };
        let first = drawn(1);
        assert_eq!(first, drawn(1));
        assert_ne!(first, drawn(2));
    }

    #[test]
    fn what_is_drawn_is_what_the_summary_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let summary = draw(folder.path(), Seed(0), small()).expect("draws");
        let files = files(folder.path());
        let (whole, broken): (Vec<_>, Vec<_>) =
            files.iter().partition(|(name, _)| name.contains(|c: char| c.is_ascii_digit()));
        assert_eq!((files.len(), broken.len()), (summary.files as usize, summary.broken as usize));
        assert_eq!(summary.bytes, files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
        assert_eq!(summary.classes.len(), CLASSES.len());
        for (name, bytes) in whole {
            let image = image::load_from_memory(bytes).expect(name);
            let longer = image.width().max(image.height());
            assert!((16..=40).contains(&longer), "{name}: {longer}");
        }
        assert!(files.iter().any(|(name, _)| name.ends_with("0000.png")), "no PNG");
    }

    #[test]
    fn the_demo_draws_600_files_and_one_class_is_seven_times_rarer_than_the_largest() {
        let counts = CLASSES.map(|(_, _, number)| number);
        assert_eq!(counts.iter().sum::<u32>() + 4, 600);
        assert_eq!(counts.iter().max().zip(counts.iter().min()).map(|(most, least)| most / least), Some(7));
    }

    #[test]
    fn inside_of_a_polygon_is_negative_and_distances_are_euclidean() {
        let square = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)];
        assert_eq!(to_polygon(&square, 1.0, 2.0), -1.0);
        assert_eq!(to_polygon(&square, 7.0, 8.0), 5.0);
    }
}
