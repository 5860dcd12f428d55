//! Where in an image a network saw a class: Grad-CAM (Selvaraju et al., arXiv 1610.02391).

use candle_core::{DType, Result, Tensor, Var};
use forebay_stages::collate::Batch;

use crate::error::{TrainError, compute};
use crate::models::Network;
use crate::ops::{self, Tape};
use crate::params::{Mode, ParamStore, Pass};
use crate::predictor::Predictor;

/// How much each place of an image spoke for a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Heatmap {
    /// Columns: as many as the last activations have, about a 32nd of the image.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[height, width]`, from 0 to 1. The largest is 1, unless nothing spoke for the class: then all are 0.
    pub values: Vec<f32>,
}

impl Heatmap {
    /// The map at `side` x `side`, bilinear with the corners of pixels aligned (PyTorch's `align_corners=False`).
    pub fn enlarged(&self, side: usize) -> Vec<f32> {
        let place = |index: usize, length: usize| {
            let at =
                ((index as f32 + 0.5) * length as f32 / side as f32 - 0.5).clamp(0.0, (length - 1) as f32);
            let first = at.floor() as usize;
            (first, (first + 1).min(length - 1), at - first as f32)
        };
        let mut values = Vec::with_capacity(side * side);
        for row in 0..side {
            let (above, below, down) = place(row, self.height);
            for column in 0..side {
                let (left, right, across) = place(column, self.width);
                let value = |row: usize, column: usize| self.values[row * self.width + column];
                let between = |row: usize| value(row, left) * (1.0 - across) + value(row, right) * across;
                values.push(between(above) * (1.0 - down) + between(below) * down);
            }
        }
        values
    }
}

impl Predictor {
    /// Grad-CAM of each image of `batch` for the class of the same place in `classes`: the last activations that have a place
    /// in the image, before they are pooled, weighted by the mean of the gradient of the class's logit over each plane; what
    /// is negative is 0 (equations 1 and 2). Norms use their running statistics, as in evaluation.
    ///
    /// # Errors
    /// When there are not as many classes as images, one is not of the network, or the device fails.
    pub fn grad_cam(
        &self,
        batch: &Batch,
        classes: &[usize],
    ) -> std::result::Result<Vec<Heatmap>, TrainError> {
        if classes.len() != batch.len() || classes.iter().any(|class| *class >= self.classes()) {
            return Err(TrainError::Batch(format!(
                "{} classes to explain {} images by, of a network with {}",
                classes.len(),
                batch.len(),
                self.classes()
            )));
        }
        let shape = (batch.len(), batch.side as usize);
        let normalize = self.chain.normalize().expect("checked when it was made");
        let images = ops::normalize(&batch.images, shape, &normalize, self.store.device());
        let maps = images.and_then(|images| {
            grad_cam(&self.network, &self.store, &images.to_dtype(self.precision)?, classes)
        });
        maps.map_err(compute("explain a prediction"))
    }
}

/// Grad-CAM of normalised images `[batch, 3, height, width]` for a class of each.
pub(crate) fn grad_cam(
    network: &Network,
    store: &ParamStore,
    images: &Tensor,
    classes: &[usize],
) -> Result<Vec<Heatmap>> {
    let planes = network.forward_to_planes(images, &Pass::new(store, Mode::Evaluate))?;
    let gradients = class_gradients(network, store, &planes, classes)?;
    let (planes, gradients) = (planes.to_dtype(DType::F32)?, gradients.to_dtype(DType::F32)?);
    // Each channel counts by the mean of its gradient.
    let weights = gradients.mean_keepdim(3)?.mean_keepdim(2)?;
    let maps = planes.broadcast_mul(&weights)?.sum(1)?;
    let (n, height, width) = maps.dims3()?;
    let values = maps.flatten_all()?.to_vec1::<f32>()?;
    let maps = values.chunks(height * width).take(n).map(|values| {
        let values: Vec<f32> = values.iter().map(|value| value.max(0.0)).collect();
        let largest = values.iter().copied().fold(0.0, f32::max);
        let values = values.into_iter().map(|value| if largest > 0.0 { value / largest } else { 0.0 });
        Heatmap { width, height, values: values.collect() }
    });
    Ok(maps.collect())
}

/// The gradient of the logit of each image's class by the planes `[batch, channels, height, width]` that are pooled.
fn class_gradients(
    network: &Network,
    store: &ParamStore,
    planes: &Tensor,
    classes: &[usize],
) -> Result<Tensor> {
    let planes = Var::from_tensor(planes)?;
    let pass = Pass::new(store, Mode::Evaluate);
    let (logits, tape) = Tape::record(|| network.forward_from_planes(planes.as_tensor(), &pass));
    let logits = logits?;
    let (n, outputs) = logits.dims2()?;
    let mut chosen = vec![0f32; n * outputs];
    for (image, class) in classes.iter().enumerate() {
        chosen[image * outputs + class] = 1.0;
    }
    // Images do not see each other, so that the gradient of the sum is that of each.
    let chosen = Tensor::from_vec(chosen, (n, outputs), logits.device())?.to_dtype(logits.dtype())?;
    let gradients = tape.backward(&logits, chosen, std::iter::once(planes.as_tensor()))?;
    match gradients.get(planes.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => planes.zeros_like(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use forebay_datasets::seed::Seed;

    use super::*;
    use crate::models::{self, Head};
    use crate::ops::Activation;
    use crate::ops::gradient_check::normal;
    use crate::params::Builder;
    use crate::{TrainOptions, Trainer};

    fn network(arch: &str, head: &Head) -> (Network, ParamStore) {
        let mut store = ParamStore::new(Device::Cpu);
        let built = models::build(arch, head, &mut Builder::new(&mut store, Seed(4)));
        (built.expect("a network").expect("a known name"), store)
    }

    /// The logit of a class by the planes is linear but for the activations of the head, so that a central difference in
    /// single precision is good to a few thousandths.
    #[test]
    fn the_gradient_that_is_used_equals_finite_differences() -> Result<()> {
        let hidden = |activation| Head { width: Some(6), activation, ..Head::linear(3) };
        for (arch, head, side, step) in [
            ("small", Head::linear(3), 24, 0.5),
            ("resnet20", hidden(Activation::Gelu), 16, 0.02),
            ("mobilenet_v3_small", Head::linear(3), 40, 0.02),
            ("mobilenet_v2", Head::linear(3), 40, 0.5),
        ] {
            let (network, store) = network(arch, &head);
            let images = normal(&[2, 3, side, side], arch).to_dtype(DType::F32)?;
            let planes = network.forward_to_planes(&images, &Pass::new(&store, Mode::Evaluate))?;
            // Away from the zeros that activations leave, where the planes of blank statistics lie.
            let planes = (planes
                + normal(&planes_of(&network, &store, &images)?, "noise").to_dtype(DType::F32)?.abs()?)?;
            let classes = [2, 0];
            let gradient =
                class_gradients(&network, &store, &planes, &classes)?.flatten_all()?.to_vec1::<f32>()?;
            let values = planes.flatten_all()?.to_vec1::<f32>()?;
            let logit = |values: Vec<f32>, image: usize| -> Result<f64> {
                let planes = Tensor::from_vec(values, planes.dims(), &Device::Cpu)?;
                let logits = network.forward_from_planes(&planes, &Pass::new(&store, Mode::Evaluate))?;
                Ok(f64::from(logits.to_vec2::<f32>()?[image][classes[image]]))
            };
            let largest = gradient.iter().fold(0f64, |most, value| most.max(f64::from(*value).abs()));
            assert!(largest > 0.0, "{arch}");
            let per_image = values.len() / 2;
            for element in (0..values.len()).step_by(values.len() / 40 + 1) {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[element] += by;
                    logit(values, element / per_image)
                };
                let difference = (moved(step)? - moved(-step)?) / (2.0 * f64::from(step));
                let error = (difference - f64::from(gradient[element])).abs();
                assert!(error <= 4e-3 * largest, "{arch} {element}: {} but {difference}", gradient[element]);
            }
        }
        Ok(())
    }

    fn planes_of(network: &Network, store: &ParamStore, images: &Tensor) -> Result<Vec<usize>> {
        Ok(network.forward_to_planes(images, &Pass::new(store, Mode::Evaluate))?.dims().to_vec())
    }

    #[test]
    fn every_network_has_planes_from_which_it_gives_its_logits() -> Result<()> {
        for arch in ["vgg11_bn", "resnet18", "inception_v3", "mobilenet_v3_large", "efficientnet_b0", "small"]
        {
            let (network, store) = network(arch, &Head::linear(4));
            let side = network.side_min().max(33);
            let images = normal(&[1, 3, side, side], arch).to_dtype(DType::F32)?;
            let pass = || Pass::new(&store, Mode::Evaluate);
            let planes = network.forward_to_planes(&images, &pass())?;
            assert_eq!(planes.dims().len(), 4, "{arch}");
            let logits = network.forward_from_planes(&planes, &pass())?.to_vec2::<f32>()?;
            assert_eq!(logits, network.forward(&images, &pass())?.to_vec2::<f32>()?, "{arch}");
        }
        Ok(())
    }

    #[test]
    fn a_heatmap_is_normalised_and_of_each_image_alone() {
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let predictor = Trainer::new(&TrainOptions::new("small", classes)).expect("a network").predictor();
        let mut stream = Seed(2).stream("pixels");
        let images = (0..2 * 3 * 32 * 32).map(|_| stream.below(256) as u8).collect();
        let batch = Batch { images, labels: vec![], ids: vec![], side: 32 };
        let both = predictor.grad_cam(&batch, &[1, 2]).expect("maps");
        for (index, map) in both.iter().enumerate() {
            assert_eq!((map.width, map.height, map.values.len()), (4, 4, 16));
            let largest = map.values.iter().copied().fold(0.0, f32::max);
            assert!(largest == 1.0 && map.values.iter().all(|value| (0.0..=1.0).contains(value)), "{map:?}");
            let alone = predictor.grad_cam(&batch.rows(index..index + 1), &[index + 1]).expect("a map");
            for (a, b) in alone[0].values.iter().zip(&map.values) {
                assert!((a - b).abs() < 1e-4);
            }
        }
        assert!(predictor.grad_cam(&batch, &[1]).is_err() && predictor.grad_cam(&batch, &[1, 3]).is_err());
    }

    #[test]
    fn an_enlarged_map_keeps_its_corners_and_lies_between_its_values() {
        let map = Heatmap { width: 2, height: 1, values: vec![0.0, 1.0] };
        assert_eq!(map.enlarged(4)[..4], [0.0, 0.25, 0.75, 1.0]);
        let one = Heatmap { width: 1, height: 1, values: vec![0.5] };
        assert_eq!(one.enlarged(3), [0.5; 9]);
    }
}
