from helpers import *
from align import ppo
from align.text.tokenizer import load_tokenizer
from align.text.load import load
from transformers import AutoModelForCausalLM
import pytest
@torch.no_grad()
def p_eos(path, rows, eos):
    m=AutoModelForCausalLM.from_pretrained(path).eval()
    return torch.stack([m(torch.tensor([r.ids])).logits[0,-1].softmax(-1)[eos] for r in rows])
@pytest.mark.parametrize("lr,n,b,ep", [(0.003,40,64,2),(0.001,60,64,2),(0.001,60,64,4)])
def test_x(world,tmp_path,lr,n,b,ep):
    changes = {"reward__path": ..., "reward__function": "helpers:brevity", "ppo__critic": world.base}
    changes |= {"optim__batch_size": b, "optim__learning_rate": lr, "train__steps": n, "kl__coefficient": 0.5, "rollout__max_tokens":1, "ppo__n_epochs":ep,"ppo__n_minibatches":1}
    rec=recipe_of(ppo, world, tmp_path / "run", **changes)
    tok=load_tokenizer(world.base)
    import time; t=time.time()
    ppo.run(rec)
    rows=ppo.encode(rec,tok,load(rec.data,"prompts",1).train)
    p=p_eos(world.base,rows,tok.eos_token_id); q=p_eos(tmp_path/"run/model",rows,tok.eos_token_id)
    e=torch.e**(1/0.5)
    opt=p*e/(p*e+1-p)
    print("TIME",time.time()-t); print("R",p.mean(),q.mean(),opt.mean(), (q-opt).abs().mean())
    print("R", p[:6],q[:6],opt[:6])
    print("R", metrics(tmp_path/"run")[-1])
