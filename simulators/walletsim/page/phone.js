'use strict';
// The phone asks the control API for everything and keeps nothing but which customer it is.
const $ = id => document.getElementById(id);
const yuan = fen => '¥' + (fen / 100).toFixed(2);
let phone = location.hash.slice(1) || '13800000001';
let shown = '', until = 0, looked = '';

async function call(method, path, body) {
  const r = await fetch('/_sim' + path, {method, body: body && JSON.stringify(body), headers: body ? {'Content-Type': 'application/json'} : {}});
  const answer = await r.json();
  if (!r.ok) throw answer;
  return answer;
}

async function attempt(what) {
  $('message').textContent = '';
  try {
    await what();
  } catch (e) {
    $('message').textContent = e.detail ? e.detail + ' · ' + e.detail_en : '网络错误 · network error';
    if (e.code === 'PIN_REQUIRED') return e.code;
  }
  refresh();
}

async function refresh() {
  try {
    const w = await call('GET', '/wallets/' + phone);
    $('balance').textContent = yuan(w.balance_fen);
    $('online').checked = w.online;
    $('ask').hidden = !w.waiting;
    if (w.waiting) {
      $('ask-shop').textContent = w.waiting.merchant;
      $('ask-amount').textContent = yuan(w.waiting.total_fen);
    }
    const bills = await call('GET', '/wallets/' + phone + '/bills');
    $('bills').replaceChildren(...bills.slice(-8).reverse().map(b => {
      const li = document.createElement('li');
      const back = b.state === 'REVOKED' ? ' 已退回' : b.back_fen ? ' 已退 ' + yuan(b.back_fen) : '';
      li.append(b.merchant + back, Object.assign(document.createElement('b'), {textContent: '-' + yuan(b.paid_fen)}));
      return li;
    }));
  } catch (e) {
    $('message').textContent = '与账本断开 · ledger not reached';
  }
}

// draw puts the picture of a code into an image. The code travels in the body, never in an address.
async function draw(image, text) {
  const r = await fetch('/_sim/picture', {method: 'POST', body: JSON.stringify({text}), headers: {'Content-Type': 'application/json'}});
  if (!r.ok) throw await r.json();
  image.src = 'data:image/svg+xml,' + encodeURIComponent(await r.text());
}

async function show(kind) {
  const {text} = await call('POST', '/wallets/' + phone + '/code', {kind});
  shown = text;
  until = Date.now() + 60000;
  await draw($('picture'), text);
  $('text').textContent = text;
  $('code').hidden = false;
}

// look shows whom the code pays, by the ledger's own name, and how much, before the customer agrees.
async function look(text) {
  $('paid').hidden = $('seen').hidden = true;
  if (!text) throw {detail: '没有收款码', detail_en: 'no code to pay'};
  const seen = await call('POST', '/wallets/' + phone + '/look', {order_text: text});
  $('seen-shop').textContent = seen.merchant;
  $('seen-amount').textContent = yuan(seen.total_fen);
  $('seen').hidden = false;
  looked = text;
}

async function pay(text) {
  let pin;
  $('seen').hidden = true;
  for (;;) {
    try {
      const p = await call('POST', '/wallets/' + phone + '/pay', pin ? {order_text: text, pin} : {order_text: text});
      $('paid-amount').textContent = yuan(p.total_fen);
      $('paid-shop').textContent = p.merchant;
      $('digits').textContent = p.digits.replace(/(....)/, '$1 ');
      await draw($('receipt'), p.receipt_text);
      $('paid').hidden = false;
      return;
    } catch (e) {
      if (e.code !== 'PIN_REQUIRED' && e.code !== 'WRONG_PIN') throw e;
      pin = prompt(e.detail + ' · ' + e.detail_en);
      if (!pin) throw e;
    }
  }
}

$('show-online').onclick = () => attempt(() => show('ONLINE'));
$('show-signed').onclick = () => attempt(() => show('SIGNED'));
$('scan').onclick = () => attempt(() => call('POST', '/scanner/scan', {text: shown}));
$('pay').onclick = () => attempt(() => look($('order').value.trim()));
$('agree').onclick = () => attempt(() => pay(looked));
$('look').onclick = () => attempt(async () => {
  const d = await call('GET', '/display');
  if (!d.code_text) throw {detail: '收款屏上没有码', detail_en: "the shop's screen shows no code"};
  $('order').value = d.code_text;
  await look(d.code_text);
});
$('confirm').onclick = () => attempt(async () => {
  const pin = prompt('支付密码 · PIN');
  if (pin) await call('POST', '/wallets/' + phone + '/confirm', {pin});
});
$('online').onchange = () => attempt(() => call('POST', '/wallets/' + phone + '/state', {online: $('online').checked}));
$('who').onchange = () => { phone = $('who').value; location.hash = phone; $('code').hidden = $('paid').hidden = $('seen').hidden = true; refresh(); };

setInterval(() => {
  if (!until) return;
  const left = Math.ceil((until - Date.now()) / 1000);
  $('left').textContent = Math.max(0, left);
  if (left <= 0) { $('code').hidden = true; until = 0; shown = ''; }
}, 250);

(async () => {
  const all = await call('GET', '/wallets');
  $('who').append(...all.map(w => new Option(w.name + ' ' + w.phone + '（密码 ' + w.pin + '）', w.phone, false, w.phone === phone)));
  refresh();
  setInterval(refresh, 1500);
})();
