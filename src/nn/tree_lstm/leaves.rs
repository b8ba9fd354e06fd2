//! From embedded words to the leaves of a tree.
use crate::autograd::Function;
use crate::error::Result;
use tch::{Kind, Tensor};

/// An LSTM over the words, from left to right, every state kept.
///
/// `inputs` `[T, B, 4H]` are the gates' inputs, biases included, gates in PyTorch's order (input, forget, cell, output);
/// `recurrent` is `[4H, H]`; h and c start at 0. Returns h and c, each `[T, B, H]`. One node of the graph for all T steps.
pub fn lstm(inputs: &Tensor, recurrent: &Tensor) -> Result<(Tensor, Tensor)> {
    let (steps, batch, width) = inputs.size3()?;
    let width = width / 4;
    let (gates, h, c, tanh_c) = {
        let _guard = tch::no_grad_guard();
        let options = (inputs.kind(), inputs.device());
        let gates = Tensor::f_empty([steps, batch, 4 * width], options)?;
        let h = Tensor::f_empty([steps, batch, width], options)?;
        let (c, tanh_c) = (h.f_empty_like()?, h.f_empty_like()?);
        let across = recurrent.f_tr()?;
        for t in 0..steps {
            let a = gates.f_get(t)?;
            if t == 0 {
                a.shallow_clone().f_copy_(&inputs.f_get(0)?)?;
            } else {
                let _ = inputs.f_get(t)?.f_addmm_out(&a, &h.f_get(t - 1)?, &across)?;
            }
            let [i, f, g, o] = parts(&a, width)?;
            let _ = a.f_narrow(1, 0, 2 * width)?.f_sigmoid_()?;
            let _ = g.shallow_clone().f_tanh_()?;
            let _ = o.shallow_clone().f_sigmoid_()?;
            let now = c.f_get(t)?;
            let _ = i.f_mul_out(&now, &g)?;
            if t > 0 {
                let _ = now.shallow_clone().f_addcmul_(&f, &c.f_get(t - 1)?)?;
            }
            let squashed = tanh_c.f_get(t)?;
            let _ = now.f_tanh_out(&squashed)?;
            let _ = squashed.f_mul_out(&h.f_get(t)?, &o)?;
        }
        (gates, h, c, tanh_c)
    };
    let kept = recurrent.detach();
    let mut out = Function::new("LeafLstm").inputs(&[inputs, recurrent]).save_output(0).save_output(1).apply(
        || Ok(vec![h, c]),
        move |node| {
            let [h, c] = node.saved() else { anyhow::bail!("two saved outputs expected") };
            let z = gates.f_empty_like()?;
            let (mut dh, mut dc) = (h.f_get(0)?.f_zeros_like()?, h.f_get(0)?.f_zeros_like()?);
            for t in (0..steps).rev() {
                let at = |i: usize| node.grads()[i].as_ref().map(|g| g.f_get(t)).transpose();
                if let Some(g) = at(0)? {
                    dh = dh.f_add(&g)?;
                }
                if let Some(g) = at(1)? {
                    dc = dc.f_add(&g)?;
                }
                let [i, f, g, o] = parts(&gates.f_get(t)?, width)?;
                let [zi, zf, zg, zo] = parts(&z.f_get(t)?, width)?;
                let squashed = tanh_c.f_get(t)?;
                let _ = Tensor::f_sigmoid_backward_grad_input(&zo, &(&dh * &squashed), &o)?;
                dc = dc.f_add(&Tensor::f_tanh_backward(&dh.f_mul(&o)?, &squashed)?)?;
                let _ = Tensor::f_sigmoid_backward_grad_input(&zi, &(&dc * &g), &i)?;
                let _ = match t {
                    0 => zf.shallow_clone().f_zero_()?,
                    _ => Tensor::f_sigmoid_backward_grad_input(&zf, &(&dc * c.f_get(t - 1)?), &f)?,
                };
                let _ = Tensor::f_tanh_backward_grad_input(&zg, &(&dc * &i), &g)?;
                dc = dc.f_mul(&f)?;
                dh = z.f_get(t)?.f_mm(&kept)?;
            }
            let across = match steps {
                1 => kept.f_zeros_like()?,
                _ => {
                    let z = z.f_narrow(0, 1, steps - 1)?.f_reshape([-1, 4 * width])?;
                    z.f_tr()?.f_mm(&h.f_narrow(0, 0, steps - 1)?.f_reshape([-1, width])?)?
                }
            };
            Ok(vec![Some(z), Some(across)])
        },
    )?;
    let c = out.remove(1);
    Ok((out.remove(0), c))
}

/// The four gates of `[B, 4H]`, as views.
fn parts(a: &Tensor, width: i64) -> Result<[Tensor; 4]> {
    let at = |k: i64| a.f_narrow(1, k * width, width);
    Ok([at(0)?, at(1)?, at(2)?, at(3)?])
}

/// A matrix with orthogonal rows or columns (Saxe et al. 2014), drawn from libtorch's CPU generator as
/// `torch.nn.init.orthogonal_` does.
pub fn orthogonal(rows: i64, columns: i64) -> Result<Tensor> {
    let flat = Tensor::f_randn([rows, columns], (Kind::Float, tch::Device::Cpu))?;
    let tall = if rows < columns { flat.f_tr()? } else { flat };
    let (q, r) = Tensor::f_linalg_qr(&tall, "reduced")?;
    let q = q * r.f_diagonal(0, 0, 1)?.f_sign()?;
    Ok(if rows < columns { q.f_tr()?.f_contiguous()? } else { q.f_contiguous()? })
}
