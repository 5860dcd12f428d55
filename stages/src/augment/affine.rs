//! Moves pixels by a linear map about the centre, interpolating between four neighbours.

use forebay_datasets::sample::Pixels;

/// Fills each output pixel from where `inverse` (output to input, `[[xx, xy], [yx, yy]]`, about the centre of
/// the image) says it comes from. Outside the image is `fill`, and the edge blends into it, as in torchvision.
///
/// Positions are those of pixel centres, so that the identity gives back every pixel.
pub(super) fn warp(input: Pixels, inverse: [[f64; 2]; 2], fill: [u8; 3]) -> Pixels {
    let (width, height) = (input.width as usize, input.height as usize);
    let (center_x, center_y) = (f64::from(input.width - 1) / 2.0, f64::from(input.height - 1) / 2.0);
    let mut data = Vec::with_capacity(input.data.len());
    for y in 0..height {
        let from_center_y = y as f64 - center_y;
        for x in 0..width {
            let from_center_x = x as f64 - center_x;
            let source_x = inverse[0][0] * from_center_x + inverse[0][1] * from_center_y + center_x;
            let source_y = inverse[1][0] * from_center_x + inverse[1][1] * from_center_y + center_y;
            data.extend_from_slice(&interpolate(&input, source_x, source_y, fill));
        }
    }
    Pixels { data, ..input }
}

/// The colour at a place between pixels.
fn interpolate(input: &Pixels, x: f64, y: f64, fill: [u8; 3]) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let (right_share, bottom_share) = ((x - left) as f32, (y - top) as f32);
    let (left, top) = (left as i64, top as i64);
    let at = |x: i64, y: i64| -> [u8; 3] {
        if x < 0 || y < 0 || x >= i64::from(input.width) || y >= i64::from(input.height) {
            return fill;
        }
        let start = (y as usize * input.width as usize + x as usize) * 3;
        [input.data[start], input.data[start + 1], input.data[start + 2]]
    };
    let corners = [at(left, top), at(left + 1, top), at(left, top + 1), at(left + 1, top + 1)];
    std::array::from_fn(|channel| {
        let [a, b, c, d] = corners.map(|corner| f32::from(corner[channel]));
        let above = a + (b - a) * right_share;
        let below = c + (d - c) * right_share;
        (above + (below - above) * bottom_share).round() as u8
    })
}
