//! One binary layer: an affine map of the states below, linear or convolutional.
use crate::dist::binary::BinaryNoise;
use crate::error::{Error, Result};
use crate::kernels::delta::{self, Conv, DeltaOptions};
use crate::nn::Params;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What a layer is, in a [`Description`](super::Description).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spec {
    /// Fully connected; states below are flattened in row-major order.
    Linear {
        /// Binary units.
        units: i64,
    },
    /// A convolution (cross-correlation, as PyTorch's) with zero padding. A padded place is no unit and is never flipped.
    Conv2d {
        /// Output channels.
        channels: i64,
        /// Height and width of the kernel.
        kernel: [i64; 2],
        /// Stride and padding.
        conv: Conv,
    },
}

impl Spec {
    /// A convolution with a square kernel.
    pub fn conv(channels: i64, kernel: i64, stride: i64, padding: i64) -> Spec {
        Spec::Conv2d { channels, kernel: [kernel; 2], conv: Conv::square(stride, padding) }
    }
}

/// State of a layer in Algorithm 1 of the paper.
#[derive(Debug)]
pub struct State {
    /// The states ±1 (or the real input, or a relaxed state), `[.., units]`.
    pub x: Tensor,
    /// All zeros, of x's shape; carries the gradient of PSA. None for the network's input, which has no flips.
    pub q: Option<Tensor>,
}

/// A layer of binary units with pre-activations `a = scale * (W x + b) + shift`, affine in the states below.
///
/// `scale` and `shift` are there on request, one of each for an output channel. They are folded into weight and bias before
/// anything else, so every estimator, the product with Delta included, sees one affine map.
///
/// Legend: `R` replicas, `B` batch.
#[derive(Debug)]
pub struct Layer {
    weight: Tensor,
    bias: Tensor,
    affine: Option<(Tensor, Tensor)>,
    conv: Option<Conv>,
    below: Vec<i64>,
    units: Vec<i64>,
}

impl Layer {
    /// Weights and biases uniform in ±1/sqrt(fan-in), PyTorch's default; scale 1 and shift 0. Drawn from libtorch's CPU
    /// generator in float32 whatever kind and device.
    pub(super) fn new(
        params: &mut Params,
        name: &str,
        spec: Spec,
        below: &[i64],
        affine: bool,
        kind: Kind,
        device: Device,
    ) -> Result<Layer> {
        let (size, conv, units) = match spec {
            Spec::Linear { units } => (vec![units, below.iter().product()], None, vec![units]),
            Spec::Conv2d { channels, kernel, conv } => {
                let &[c, h, w] = below else {
                    return Err(Error::shape("Conv2d", "states [channels, height, width] below", below));
                };
                let to = |n: i64, axis: usize| {
                    (n + 2 * conv.padding[axis] - kernel[axis]).div_euclid(conv.stride[axis].max(1)) + 1
                };
                let units = vec![channels, to(h, 0), to(w, 1)];
                if conv.stride.iter().any(|s| *s < 1) || conv.padding.iter().any(|p| *p < 0) {
                    return Err(Error::range(
                        format!("{name}: stride and padding"),
                        "at least 1 and 0",
                        format!("{conv:?}"),
                    ));
                }
                (vec![channels, c, kernel[0], kernel[1]], Some(conv), units)
            }
        };
        if size.iter().chain(&units).any(|n| *n < 1) {
            return Err(Error::range(
                format!("{name}: sizes"),
                "at least 1",
                format!("weight {size:?}, units {units:?}"),
            ));
        }
        let bound = 1.0 / (size[1..].iter().product::<i64>() as f64).sqrt();
        let mut draw = |what: &str, size: &[i64]| -> Result<Tensor> {
            let value =
                Tensor::f_empty(size, (Kind::Float, Device::Cpu))?.f_uniform_(-bound, bound)?.f_to_kind(kind)?;
            params.add(format!("{name}.{what}"), value, device)
        };
        let (weight, bias) = (draw("weight", &size)?, draw("bias", &size[..1])?);
        let affine = if affine {
            let options = (kind, Device::Cpu);
            let scale = params.add(format!("{name}.scale"), Tensor::f_ones(&size[..1], options)?, device)?;
            Some((scale, params.add(format!("{name}.shift"), Tensor::f_zeros(&size[..1], options)?, device)?))
        } else {
            None
        };
        Ok(Layer { weight, bias, affine, conv, below: below.to_vec(), units })
    }

    /// Shape of the layer's states, without the batch: `[n]` or `[channels, height, width]`.
    pub fn units(&self) -> &[i64] {
        &self.units
    }

    /// Number of binary units.
    pub fn count(&self) -> i64 {
        self.units.iter().product()
    }

    /// The map with scale and shift folded in, differentiable in all parameters.
    pub fn fold(&self) -> Result<Affine<'_>> {
        let Some((scale, shift)) = &self.affine else {
            return Ok(Affine { layer: self, weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() });
        };
        let mut per_output = scale.shallow_clone();
        for _ in scale.dim()..self.weight.dim() {
            per_output = per_output.f_unsqueeze(-1)?;
        }
        Ok(Affine { layer: self, weight: &self.weight * per_output, bias: &self.bias * scale + shift })
    }

    /// `a(x)`: states `[.., B, units below]` -> pre-activations, differentiable in x and the parameters.
    pub fn preactivation(&self, x: &Tensor) -> Result<Tensor> {
        self.fold()?.apply(x)
    }

    /// Changes every pre-activation a of output channel o to `(a_o - mean_o) / std_o`; `[outputs]` each.
    pub(super) fn renormalise(&self, mean: &Tensor, std: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let (factor, offset) = self.affine.as_ref().map_or((&self.weight, &self.bias), |(scale, shift)| (scale, shift));
        let moved = (offset - mean) / std;
        offset.shallow_clone().f_copy_(&moved)?;
        let mut size = vec![1; factor.dim()];
        size[0] = -1;
        let scaled = factor / std.f_view(&size[..])?;
        factor.shallow_clone().f_copy_(&scaled)?;
        Ok(())
    }

    /// The same layer on other tensors, given by the last part of the parameter's name.
    pub(super) fn with(&self, get: &mut dyn FnMut(&str) -> Result<Tensor>) -> Result<Layer> {
        let (weight, bias) = (get("weight")?, get("bias")?);
        let affine = if self.affine.is_some() { Some((get("scale")?, get("shift")?)) } else { None };
        Ok(Layer { weight, bias, affine, conv: self.conv, below: self.below.clone(), units: self.units.clone() })
    }

    /// True for a convolution.
    pub(super) fn is_conv(&self) -> bool {
        self.conv.is_some()
    }

    /// Sums everything but the leading axes: `[.., units]` -> `[..]`.
    pub(super) fn sum_units(&self, t: &Tensor) -> Result<Tensor> {
        let axes: Vec<i64> = (1..=self.units.len() as i64).map(|i| -i).collect();
        Ok(t.f_sum_dim_intlist(&axes[..], false, t.kind())?)
    }
}

/// A layer's affine map with everything folded into one weight and one bias.
#[derive(Debug)]
pub struct Affine<'a> {
    layer: &'a Layer,
    /// `[out, in]` or `[O, C, kh, kw]`; in a replicated network `[R, out, in]`.
    pub weight: Tensor,
    /// `[out]`; in a replicated network `[R, out]`.
    pub bias: Tensor,
}

impl Affine<'_> {
    /// `W x + b`: `[.., B, units below]` -> `[.., B, units]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where x does not have the units of the layer below.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_map(x, &self.weight, Some(&self.bias))
    }

    /// `W^2 v`, the variance of `W x` when the x are independent with variances v.
    pub(super) fn apply_squared(&self, v: &Tensor) -> Result<Tensor> {
        self.linear_map(v, &self.weight.f_square()?, None)
    }

    fn linear_map(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let x = self.shaped(x)?;
        Ok(match self.layer.conv {
            Some(conv) => x.f_conv2d(weight, bias, conv.stride, conv.padding, [1, 1], 1)?,
            None => linear(&x, weight, bias)?,
        })
    }

    /// The states below in the shape that this map takes: flattened before a linear layer.
    pub(super) fn shaped(&self, x: &Tensor) -> Result<Tensor> {
        shaped("binary layer", x, &self.layer.below, !self.layer.is_conv())
    }

    /// The product with Delta: for each unit i below, `sum_j g_j [F(a_j) - F(a_j - 2 w_ji x_i)]`; x, a and g without graph,
    /// x in the shape of [`Affine::shaped`].
    pub(super) fn delta(
        noise: &BinaryNoise,
        conv: Option<Conv>,
        x: &Tensor,
        weight: &Tensor,
        a: &Tensor,
        g: &Tensor,
        options: &DeltaOptions,
    ) -> Result<Tensor> {
        match conv {
            Some(conv) => delta::conv2d(noise, x, weight, a, g, &conv, options),
            None => {
                let rows = |t: &Tensor| -> Result<Tensor> { Ok(t.f_reshape([-1, t.size()[t.dim() - 1]])?) };
                // replicas are equal in value: Network::with_parameters sees to it
                let w = if weight.dim() == 3 { weight.f_select(0, 0)? } else { weight.shallow_clone() };
                let size = x.size();
                Ok(delta::linear(noise, &rows(x)?, &w, &rows(a)?, &rows(g)?, options)?.f_view(&size[..])?)
            }
        }
    }

    pub(super) fn conv(&self) -> Option<Conv> {
        self.layer.conv
    }
}

/// States `[.., below]`, with the axes of one state made one on request.
///
/// # Errors
/// [`Error::Shape`] where x does not end with `below` after a batch axis.
pub(super) fn shaped(op: &'static str, x: &Tensor, below: &[i64], flat: bool) -> Result<Tensor> {
    let lead = x.dim().saturating_sub(below.len());
    if lead < 1 || x.size()[lead..] != *below {
        return Err(Error::shape(op, format!("states [.., B] x {below:?}"), x.size()));
    }
    if flat && below.len() > 1 { Ok(x.f_flatten(lead as i64, -1)?) } else { Ok(x.shallow_clone()) }
}

/// `x W^T + b` with weight `[out, in]`, or with replicas `[R, out, in]` and bias `[R, out]`.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if weight.dim() == 2 {
        return Ok(x.f_linear(weight, bias)?);
    }
    let y = x.f_matmul(&weight.f_transpose(-1, -2)?)?;
    Ok(match bias {
        Some(b) => y + b.f_unsqueeze(-2)?,
        None => y,
    })
}
