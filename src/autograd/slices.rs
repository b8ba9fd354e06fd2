//! The numbers of a contiguous CPU tensor as a Rust slice, without a copy: what a kernel written in Rust reads and writes.
//!
//! **Aliasing.** Handles of one tensor, and its views, share memory, and libtorch changes it through any of them. So, while
//! a slice from here is alive, nothing may write to that memory in another way, and, for a mutable slice, nothing may
//! read it either: no in-place operation, and no second slice, on the tensor, a clone of its handle or a view of it, on
//! this or another thread. Rust cannot check that, which is why these functions do not leave the crate. The pattern that
//! keeps the rule with no thought: take the slices at the head of a kernel, call nothing of libtorch, drop them at its end;
//! write only to tensors that the kernel itself has made.
use super::ffi;
use crate::{Error, Result};
use tch::{Device, Tensor};

mod sealed {
    /// # Safety
    /// `KIND` is the kind whose elements have the layout of the type, every bit pattern libtorch writes being valid.
    pub unsafe trait Sealed {
        const KIND: tch::Kind;
    }
    macro_rules! element {
        ($($t:ty = $kind:ident),*) => {$(
            // SAFETY: c10's table of scalar types; libtorch keeps a bool as a byte of 0 or 1.
            unsafe impl Sealed for $t {
                const KIND: tch::Kind = tch::Kind::$kind;
            }
            impl super::Element for $t {}
        )*};
    }
    element!(f32 = Float, f64 = Double, i64 = Int64, u8 = Uint8, bool = Bool, u16 = BFloat16);
}

/// A type that a slice of a tensor may hold: `f32`, `f64`, `i64`, `u8` or `bool`, for the tensor kind of that name; `u16`, for the bits
/// of a bfloat16.
pub(crate) trait Element: sealed::Sealed + Copy + 'static {}

/// The elements of `t` in row-major order. See the module's rule on aliasing.
///
/// # Errors
/// [`Error::Shape`] unless `t` is a contiguous CPU tensor of kind `T`.
pub(crate) fn slice<T: Element>(t: &Tensor) -> Result<&[T]> {
    let (p, n) = check::<T>("slice", t)?;
    // SAFETY: `n` elements of T's layout lie at `p`, aligned, and live as long as the handle borrowed; not written
    // meanwhile by the rule of the module.
    Ok(if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(p, n) } })
}

/// The elements of `t`, to be written. See the module's rule on aliasing; autograd counts this as a change in place.
///
/// # Errors
/// [`Error::Shape`] unless `t` is a contiguous CPU tensor of kind `T`.
pub(crate) fn slice_mut<T: Element>(t: &mut Tensor) -> Result<&mut [T]> {
    let (p, n) = check::<T>("slice_mut", t)?;
    // SAFETY: a defined tensor, as checked.
    unsafe { ffi::thruway_bump_version(t.as_ptr()) };
    // SAFETY: as in `slice`; not read or written elsewhere meanwhile by the rule of the module.
    Ok(if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(p, n) } })
}

fn check<T: Element>(op: &'static str, t: &Tensor) -> Result<(*mut T, usize)> {
    let got = |what: String| Err(Error::shape(op, format!("a contiguous CPU tensor of kind {:?}", T::KIND), what));
    if !t.defined() {
        return got("an undefined tensor".into());
    }
    let (kind, device) = (t.f_kind()?, t.device());
    if kind != T::KIND || device != Device::Cpu {
        return got(format!("{kind:?} on {device:?}"));
    }
    if t.is_sparse() || t.is_mkldnn() || !t.is_contiguous() {
        return got(format!("{kind:?} of shape {:?} with other strides", t.size()));
    }
    Ok((t.data_ptr().cast(), t.numel()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn slices_read_and_write_in_row_major_order() -> anyhow::Result<()> {
        let mut t = Tensor::from_slice2(&[[1f32, 2.], [3., 4.]]);
        assert_eq!(slice::<f32>(&t)?, [1., 2., 3., 4.]);
        slice_mut::<f32>(&mut t)?[2] = 7.;
        assert_eq!(t.double_value(&[1, 0]), 7.);
        assert_eq!(slice::<f32>(&t.select(0, 1))?, [7., 4.]);
        assert_eq!(slice::<f64>(&Tensor::from_slice(&[1f64]))?, [1.]);
        assert_eq!(slice::<i64>(&Tensor::from_slice(&[5i64]))?, [5]);
        assert_eq!(slice::<u8>(&Tensor::from_slice(&[5u8]))?, [5]);
        assert_eq!(slice::<bool>(&Tensor::from_slice(&[true, false]))?, [true, false]);
        assert_eq!(slice::<u16>(&Tensor::from_slice(&[1f32, -2.]).to_kind(Kind::BFloat16))?, [0x3f80, 0xc000]);
        Ok(())
    }

    #[test]
    fn empty_tensors_give_empty_slices() -> anyhow::Result<()> {
        let mut t = Tensor::zeros([3, 0], (Kind::Float, Device::Cpu));
        assert!(slice::<f32>(&t)?.is_empty());
        assert!(slice_mut::<f32>(&mut t)?.is_empty());
        Ok(())
    }

    #[test]
    fn what_is_no_plain_memory_of_the_kind_is_refused() {
        let t = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        for (bad, word) in [
            (t.to_kind(Kind::Double), "Double on Cpu"),
            (t.transpose(0, 1), "strides"),
            (t.to_sparse(None, None::<i64>, None), "strides"),
            (Tensor::new(), "undefined"),
        ] {
            let message = slice::<f32>(&bad).unwrap_err().to_string();
            assert!(message.contains("kind Float") && message.contains(word), "{message}");
        }
    }

    #[test]
    fn writing_to_a_tensor_saved_for_backward_is_caught() -> anyhow::Result<()> {
        let x = Tensor::from_slice(&[1f32, 2.]).set_requires_grad(true);
        let mut y = x.exp(); // saves its output
        let loss = y.sum(Kind::Float);
        slice_mut::<f32>(&mut y)?[0] = 0.;
        let message = loss.f_backward().unwrap_err().to_string();
        assert!(message.contains("modified by an inplace operation"), "{message}");
        Ok(())
    }
}
